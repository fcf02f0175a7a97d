-- Usage by day, from the ledger: sums that reports are made of.  A dimension is one
-- combination of who and what; its id is a hash of it, so that nobody has to look it up.

LOCK TABLE ledger IN SHARE MODE;
DROP TABLE daily_usage;

CREATE TABLE usage_dims (
    dim              uuid PRIMARY KEY,
    kind             "char" NOT NULL CHECK (kind IN ('k', 'g', 't', 'o', 'c', 'l', 'n')),
    name             text NOT NULL,
    token            text NOT NULL,
    user_id          text NOT NULL,
    team_id          text NOT NULL,
    organization_id  text NOT NULL,
    model            text NOT NULL,
    upstream_model   text NOT NULL,
    provider         text NOT NULL,
    route            text NOT NULL
);
CREATE INDEX usage_dims_name ON usage_dims (kind, name) WHERE name <> '';
CREATE INDEX usage_dims_token ON usage_dims (token) WHERE kind = 'k';
CREATE INDEX usage_dims_user ON usage_dims (user_id) WHERE kind = 'k' AND user_id <> '';
CREATE INDEX usage_dims_team ON usage_dims (team_id) WHERE kind = 'k' AND team_id <> '';
CREATE INDEX usage_dims_organization ON usage_dims (organization_id) WHERE kind = 'k' AND organization_id <> '';
COMMENT ON TABLE usage_dims IS 'Who and what a sum is of';
COMMENT ON COLUMN usage_dims.kind IS
    'k: key; c: end user, l: tag, both by key; g: everything, t: team, o: organization, n: tag, these without the key';
COMMENT ON COLUMN usage_dims.name IS 'The team, organization, end user or tag';

CREATE TABLE usage_sums (
    dim                uuid NOT NULL,
    kind               "char" NOT NULL,
    day                date NOT NULL,
    requests           bigint NOT NULL,
    failed             bigint NOT NULL,
    prompt_tokens      bigint NOT NULL,
    completion_tokens  bigint NOT NULL,
    cache_read_tokens  bigint NOT NULL,
    cache_write_tokens bigint NOT NULL,
    cost_nusd          bigint NOT NULL,
    cost_ucr           bigint NOT NULL,
    parts              bigint NOT NULL,
    PRIMARY KEY (dim, kind, day)
) PARTITION BY LIST (kind);
-- Few rows that are read often do not lie scattered among the many.
CREATE TABLE usage_sums_key PARTITION OF usage_sums FOR VALUES IN ('k') WITH (fillfactor = 80);
CREATE TABLE usage_sums_month PARTITION OF usage_sums FOR VALUES IN ('m') WITH (fillfactor = 80);
CREATE TABLE usage_sums_name PARTITION OF usage_sums FOR VALUES IN ('c', 'l') WITH (fillfactor = 80);
CREATE TABLE usage_sums_total PARTITION OF usage_sums FOR VALUES IN ('g', 't', 'o', 'n') WITH (fillfactor = 80);
CREATE INDEX usage_sums_day ON usage_sums (kind, day, dim);
COMMENT ON TABLE usage_sums IS 'Requests, tokens and money of a dimension on one UTC day; written by the ledger consumer only';
COMMENT ON COLUMN usage_sums.kind IS 'As the dimension''s; m: a month of a key, by its first day';
COMMENT ON COLUMN usage_sums.parts IS 'Without the key: how many rows by key it is the sum of';

-- The twin of usage_dim() in controld/ledger_usage.c.
CREATE FUNCTION kt_usage_dim(kind "char", name text, token text, user_id text, team_id text,
    organization_id text, model text, upstream_model text, provider text, route text) RETURNS uuid
    LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT left(encode(sha256(convert_to(concat_ws(E'\x1f', kind::text, name, token, user_id, team_id,
        organization_id, model, upstream_model, provider, route), 'UTF8')), 'hex'), 32)::uuid $$;

-- What the sums must be.
CREATE VIEW kt_usage_truth AS
WITH r AS (
    SELECT (started_at AT TIME ZONE 'UTC')::date AS day, coalesce(token, '') AS token,
           coalesce(user_id, '') AS user_id, coalesce(team_id, '') AS team_id,
           coalesce(organization_id, '') AS organization_id, coalesce(customer_id, '') AS customer_id,
           tags, model, upstream_model, provider, route, (http_status >= 400)::int AS failed,
           prompt_tokens, completion_tokens, cache_read_tokens, cache_write_tokens, cost_nusd, cost_ucr
      FROM ledger WHERE kind = 'request'
), d AS (
    SELECT x.kind, x.name, CASE WHEN x.fine THEN token ELSE '' END AS token,
           CASE WHEN x.fine THEN user_id ELSE '' END AS user_id,
           CASE WHEN x.fine THEN team_id ELSE '' END AS team_id,
           CASE WHEN x.fine THEN organization_id ELSE '' END AS organization_id,
           model, upstream_model, provider, route, x.day, 1 AS requests, failed, prompt_tokens,
           completion_tokens, cache_read_tokens, cache_write_tokens, cost_nusd, cost_ucr,
           CASE WHEN NOT x.fine THEN concat_ws(E'\x1f', r.token, r.user_id, r.team_id, r.organization_id) END
               AS part
      FROM r CROSS JOIN LATERAL (
        SELECT 'k' AS kind, '' AS name, true AS fine, r.day AS day
        UNION ALL SELECT 'm', '', true, date_trunc('month', r.day::timestamp)::date
        UNION ALL SELECT 'g', '', false, r.day
        UNION ALL SELECT 't', r.team_id, false, r.day WHERE r.team_id <> ''
        UNION ALL SELECT 'o', r.organization_id, false, r.day WHERE r.organization_id <> ''
        UNION ALL SELECT 'c', r.customer_id, true, r.day WHERE r.customer_id <> ''
        UNION ALL SELECT 'l', t, true, r.day FROM (SELECT DISTINCT unnest(r.tags) AS t) y WHERE t <> ''
        UNION ALL SELECT 'n', t, false, r.day FROM (SELECT DISTINCT unnest(r.tags) AS t) z WHERE t <> '') x
)
SELECT kind::"char" AS kind, name, token, user_id, team_id, organization_id, model, upstream_model,
       provider, route, day, sum(requests)::bigint AS requests, sum(failed)::bigint AS failed,
       sum(prompt_tokens)::bigint AS prompt_tokens, sum(completion_tokens)::bigint AS completion_tokens,
       sum(cache_read_tokens)::bigint AS cache_read_tokens,
       sum(cache_write_tokens)::bigint AS cache_write_tokens, sum(cost_nusd)::bigint AS cost_nusd,
       sum(cost_ucr)::bigint AS cost_ucr, count(DISTINCT part) AS parts
  FROM d GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11;
COMMENT ON VIEW kt_usage_truth IS 'The sums computed from the ledger itself, for checks';

INSERT INTO usage_dims
SELECT DISTINCT kt_usage_dim(kind, name, token, user_id, team_id, organization_id, model, upstream_model,
           provider, route), kind, name, token, user_id, team_id, organization_id, model, upstream_model,
           provider, route
  FROM kt_usage_truth WHERE kind <> 'm';
INSERT INTO usage_sums
SELECT kt_usage_dim(CASE kind WHEN 'm' THEN 'k' ELSE kind END, name, token, user_id, team_id,
           organization_id, model, upstream_model, provider, route), kind, day, requests, failed,
           prompt_tokens, completion_tokens, cache_read_tokens, cache_write_tokens, cost_nusd, cost_ucr,
           parts
  FROM kt_usage_truth;

-- The sums with what they are of.
CREATE VIEW kt_usage AS
SELECT s.kind, x.name, x.token, x.user_id, x.team_id, x.organization_id, x.model, x.upstream_model,
       x.provider, x.route, s.day, s.requests, s.failed, s.prompt_tokens, s.completion_tokens,
       s.cache_read_tokens, s.cache_write_tokens, s.cost_nusd, s.cost_ucr, s.parts
  FROM usage_sums s JOIN usage_dims x USING (dim);
COMMENT ON VIEW kt_usage IS 'usage_sums with their dimensions; equal to kt_usage_truth whenever nothing is under way';

CREATE INDEX ledger_limited ON ledger (started_at) WHERE http_status = 429;

-- A row of the ledger on the wire; what failed says why.
CREATE OR REPLACE FUNCTION kt_spend_json(l ledger) RETURNS json LANGUAGE plpgsql STABLE AS $$
DECLARE
    state text := CASE WHEN l.http_status BETWEEN 200 AND 399 OR l.http_status = 0
                       THEN 'success' ELSE 'failure' END;
BEGIN RETURN (
    SELECT to_json(r) FROM (SELECT
        CASE WHEN l.answer_id <> '' THEN l.answer_id ELSE l.rid END AS request_id,
        CASE l.route WHEN 'chat' THEN 'acompletion' WHEN 'completions' THEN 'atext_completion'
             WHEN 'embeddings' THEN 'aembedding' WHEN 'messages' THEN 'anthropic_messages'
             WHEN 'responses' THEN 'aresponses' ELSE l.route END AS call_type,
        coalesce(l.token, '') AS api_key, kt_usd(l.cost_nusd) AS spend,
        l.prompt_tokens + l.completion_tokens AS total_tokens, l.prompt_tokens AS prompt_tokens,
        l.completion_tokens AS completion_tokens, kt_ts(l.admitted_at) AS "startTime",
        kt_ts(l.ended_at) AS "endTime",
        kt_ts(coalesce(l.first_token_at, l.ended_at)) AS "completionStartTime",
        greatest(0, floor(extract(epoch FROM l.ended_at - l.admitted_at) * 1000))::bigint
            AS request_duration_ms,
        CASE WHEN l.upstream_model <> '' THEN l.upstream_model ELSE l.model END AS model,
        '' AS model_id, l.model AS model_group, l.provider AS custom_llm_provider, '' AS api_base,
        coalesce(l.user_id, '') AS "user",
        json_build_object('user_api_key', l.token, 'user_api_key_alias', k.key_alias,
            'user_api_key_team_id', l.team_id, 'user_api_key_org_id', l.organization_id,
            'user_api_key_user_id', l.user_id, 'user_api_key_team_alias', t.team_alias,
            'requester_ip_address', l.client_ip, 'status', state,
            'usage_object', json_build_object('prompt_tokens', l.prompt_tokens,
                'completion_tokens', l.completion_tokens,
                'total_tokens', l.prompt_tokens + l.completion_tokens,
                'cache_read_input_tokens', l.cache_read_tokens,
                'cache_creation_input_tokens', l.cache_write_tokens,
                'reasoning_tokens', l.reasoning_tokens),
            'error_information', CASE WHEN state = 'failure' THEN json_build_object(
                'error_code', l.http_status::text, 'error_class', '', 'llm_provider', l.provider,
                'error_message', coalesce(nullif(l.reason, ''), l.ending), 'traceback', '') END,
            'keytoll', json_build_object('rid', l.rid, 'kind', l.kind, 'ending', l.ending,
                'estimated', l.estimated, 'late', l.late, 'http_status', l.http_status,
                'cost_nusd', l.cost_nusd, 'node', l.node)) AS metadata,
        'False' AS cache_hit, '' AS cache_key, l.tags AS request_tags, l.team_id AS team_id,
        l.organization_id AS organization_id, l.customer_id AS end_user,
        l.client_ip AS requester_ip_address, '{}'::json AS messages, '{}'::json AS response,
        l.rid AS session_id, state AS status,
        NULL AS mcp_namespaced_tool_name, NULL AS agent_id,
        '{}'::json AS proxy_server_request
      FROM (SELECT 1) one LEFT JOIN keys k ON k.token = l.token
      LEFT JOIN teams t ON t.team_id = l.team_id) r);
END $$;

-- As before, without a regular expression: reports call it very often.
CREATE OR REPLACE FUNCTION kt_usd(nusd bigint) RETURNS json
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT CASE WHEN nusd = 0 THEN '0.0'::json
           ELSE (CASE WHEN nusd < 0 THEN '-' ELSE '' END || abs(nusd / 1000000000) || '.'
                 || CASE WHEN nusd % 1000000000 = 0 THEN '0'
                         ELSE rtrim(lpad(abs(nusd % 1000000000)::text, 9, '0'), '0') END)::json END $$;
