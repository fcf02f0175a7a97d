-- wrk -t1 -c64 -d5 -s t/mock/chat.lua http://127.0.0.1:PORT/v1/chat/completions

wrk.method = "POST"
wrk.body = '{"model":"gpt-4o","messages":[{"role":"system","content":'
    .. '"You are a helpful assistant."},{"role":"user","content":'
    .. '"Say hello to the world, please."}],"max_tokens":16}'
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer sk-test"
