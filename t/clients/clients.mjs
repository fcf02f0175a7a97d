// The official clients, unchanged but for their base URL.  Prints TAP.

import OpenAI from "openai";
import Anthropic from "@anthropic-ai/sdk";

const base = process.env.KEYTOLL_URL;
const master = process.env.KEYTOLL_MASTER_KEY;
let n = 0;

function ok(value, name) {
  n += 1;
  console.log(`${value ? "ok" : "not ok"} ${n} - ${name}`);
}

async function admin(path, body) {
  const r = await fetch(base + path, {
    method: "POST",
    headers: { authorization: `Bearer ${master}`, "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  if (!r.ok) throw new Error(`${path}: ${r.status} ${await r.text()}`);
  return r.json();
}

async function openai() {
  const { key } = await admin("/key/generate", { max_budget: 1 });
  const client = new OpenAI({ apiKey: key, baseURL: `${base}/v1`, maxRetries: 0 });
  const messages = [{ role: "user", content: "Say something." }];

  const answer = await client.chat.completions.create({ model: "gpt-4o-mini", messages, max_tokens: 7 });
  ok(answer.usage.completion_tokens === 7, "openai: chat completion");

  let text = "";
  let usage = null;
  let last = null;
  for await (const chunk of await client.chat.completions.create({ model: "gpt-4o-mini", messages, max_tokens: 9, stream: true })) {
    text += chunk.choices[0].delta.content ?? "";
    usage = chunk.usage ?? usage;
    last = chunk.choices[0].finish_reason ?? last;
  }
  ok(text.length > 0 && last === "length", "openai: stream, choices[0] in every chunk");
  ok(usage === null, "openai: no usage chunk that was not asked for");

  for await (const chunk of await client.chat.completions.create({ model: "gpt-4o-mini", messages, max_tokens: 9, stream: true, stream_options: { include_usage: true } })) {
    usage = chunk.usage ?? usage;
  }
  ok(usage?.completion_tokens === 9, "openai: usage chunk when asked for");

  const vector = await client.embeddings.create({ model: "text-embedding-3-small", input: "hello" });
  ok(vector.data[0].embedding.length > 0, "openai: embeddings");

  const models = await client.models.list();
  ok(models.data.some((m) => m.id === "gpt-4o-mini"), "openai: models.list");

  const wrong = new OpenAI({ apiKey: "sk-nobody-made-this-key", baseURL: `${base}/v1`, maxRetries: 0 });
  const e = await wrong.chat.completions.create({ model: "gpt-4o-mini", messages }).catch((err) => err);
  ok(e instanceof OpenAI.AuthenticationError && e.type === "token_not_found_in_db", "openai: AuthenticationError");

  const { key: poor } = await admin("/key/generate", { rpm_limit: 1 });
  const limited = new OpenAI({ apiKey: poor, baseURL: `${base}/v1`, maxRetries: 0 });
  await limited.chat.completions.create({ model: "gpt-4o-mini", messages, max_tokens: 1 });
  const r = await limited.chat.completions.create({ model: "gpt-4o-mini", messages, max_tokens: 1 }).catch((err) => err);
  ok(r instanceof OpenAI.RateLimitError, "openai: RateLimitError");
}

async function anthropic() {
  const { key } = await admin("/key/generate", { max_budget: 1 });
  const client = new Anthropic({ apiKey: key, baseURL: base, maxRetries: 0 });
  const model = "claude-sonnet-4-5";
  const messages = [{ role: "user", content: "Say something." }];

  const answer = await client.messages.create({ model, max_tokens: 6, messages });
  ok(answer.usage.output_tokens === 6, "anthropic: message");

  const stream = client.messages.stream({ model, max_tokens: 8, messages });
  let deltas = 0;
  stream.on("text", () => { deltas += 1; });
  const final = await stream.finalMessage();
  ok(deltas > 0 && final.usage.output_tokens === 8, "anthropic: stream");

  const wrong = new Anthropic({ apiKey: "sk-nobody-made-this-key", baseURL: base, maxRetries: 0 });
  const e = await wrong.messages.create({ model, max_tokens: 6, messages }).catch((err) => err);
  ok(e instanceof Anthropic.AuthenticationError, "anthropic: AuthenticationError");
}

try {
  await openai();
  await anthropic();
} catch (err) {
  ok(false, `died: ${err.stack}`);
}
console.log(`1..${n}`);
