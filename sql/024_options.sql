-- Options of keys: what every body must have (enforced_params), a lower rate in place of a
-- spent budget (throttle_on_budget_exceeded), cheaper models in place of one that a budget
-- does not reach (budget_fallbacks).

ALTER TABLE proxy
    ADD COLUMN enforced_params text[] NOT NULL DEFAULT '{}',
    ADD COLUMN service_params  text[] NOT NULL DEFAULT '{}';
COMMENT ON COLUMN proxy.enforced_params IS 'Members that bodies of every key must have';
COMMENT ON COLUMN proxy.service_params IS 'Members that bodies of service accounts must have besides';

-- Names of members as the gate takes them; null for none.
CREATE FUNCTION kt_params(v jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT jsonb_agg(n ORDER BY i) FROM (
        SELECT left(regexp_replace(e, '[[:cntrl:]]', '?', 'g'), 200) AS n, i
          FROM jsonb_array_elements_text(CASE WHEN jsonb_typeof(v) = 'array' THEN v ELSE '[]' END)
               WITH ORDINALITY AS x(e, i)
         WHERE e <> '' ORDER BY i LIMIT 64) y $$;

-- The percentage of its rates that a key has when its budget is spent; null: it is refused.
CREATE FUNCTION kt_throttle(metadata jsonb) RETURNS integer LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN metadata->'throttle_on_budget_exceeded' = 'true' THEN
        CASE WHEN jsonb_typeof(metadata->'budget_exceeded_throttle_percentage') = 'number'
             THEN CASE WHEN (metadata->>'budget_exceeded_throttle_percentage')::numeric BETWEEN 1 AND 99
                       THEN trunc((metadata->>'budget_exceeded_throttle_percentage')::numeric)::integer
                       ELSE 50 END
             ELSE 50 END END $$;

-- From a model to those that may be asked for instead; null for none.
CREATE FUNCTION kt_falls(v jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT jsonb_object_agg(k, l) FROM (
        SELECT k, (SELECT jsonb_agg(e ORDER BY i) FROM (
                      SELECT e, i FROM jsonb_array_elements_text(CASE WHEN jsonb_typeof(m) = 'array' THEN m ELSE '[]' END)
                           WITH ORDINALITY AS x(e, i)
                       WHERE octet_length(e) BETWEEN 1 AND 255 AND e !~ '[[:cntrl:]]' AND e <> k
                       ORDER BY i LIMIT 8) y) AS l
          FROM jsonb_each(CASE WHEN jsonb_typeof(v) = 'object' THEN v ELSE '{}' END) AS f(k, m)
         ORDER BY k LIMIT 64) z
     WHERE l IS NOT NULL $$;

-- What a key's policy has besides limits.
CREATE FUNCTION kt_key_options(k keys) RETURNS jsonb LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT jsonb_strip_nulls(jsonb_build_object(
        'params', kt_params(k.metadata->'enforced_params'),
        'service', CASE WHEN k.metadata->>'service_account_id' IS NOT NULL THEN true END,
        'throttle', kt_throttle(k.metadata),
        'falls', kt_falls(k.extra->'budget_fallbacks'))) $$;

-- Why a key can not be throttled; null when it can, or is not to be.
CREATE FUNCTION kt_throttle_wrong(k keys) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN kt_throttle(k.metadata) IS NULL THEN NULL
                WHEN coalesce(k.rpm_limit, b.rpm_limit, k.tpm_limit, b.tpm_limit) IS NULL THEN 'rate'
                WHEN kt_strict(coalesce(k.budget_enforcement, b.budget_enforcement)) THEN 'strict' END
      FROM (SELECT 1) one LEFT JOIN budgets b ON b.budget_id = k.budget_id $$;

CREATE OR REPLACE VIEW kt_policy AS
SELECT name, v, period_id, used,
       CASE WHEN name LIKE 'key:%' THEN coalesce((
           SELECT (r.policy::jsonb || kt_key_options(k)
                   || CASE WHEN k.current_hash IS NOT NULL THEN jsonb_build_object('meter', greatest(1, floor(extract(
                       epoch FROM coalesce(k.original_until, k.last_rotation_at, now())) * 1000)::bigint)) ELSE '{}' END
                   || CASE WHEN r.policy::jsonb ? 'limit' THEN jsonb_build_object('limit', least(9000000000000000000,
                       (r.policy::jsonb->>'limit')::numeric + kt_temp_nusd(k.metadata))::text) ELSE '{}' END)::text
             FROM keys k WHERE k.ent = r.name AND (k.current_hash IS NOT NULL OR k.metadata ?|
                  '{temp_budget_increase,enforced_params,service_account_id,throttle_on_budget_exceeded}'
                  OR k.extra ? 'budget_fallbacks')),
           policy)
       WHEN name = 'global' THEN (SELECT (r.policy::jsonb || jsonb_strip_nulls(jsonb_build_object(
               'params', kt_params(to_jsonb(x.enforced_params)),
               'sparams', kt_params(to_jsonb(x.service_params)))))::text FROM proxy x)
       ELSE policy END AS policy
  FROM kt_policy_rows r
UNION ALL
SELECT h.ent, b.v, 0, kt_used(h.ent, 0), kt_policy_thin(h, b.policy::jsonb || kt_key_options(k))
  FROM key_tokens h JOIN keys k USING (token) CROSS JOIN LATERAL kt_policy_of('key:' || h.token) b;

-- Options of keys come along.
CREATE OR REPLACE FUNCTION kt_import_keys(rows jsonb, periods jsonb) RETURNS kt_import LANGUAGE plpgsql AS $$
DECLARE
    spent jsonb;
    notes jsonb;
BEGIN
    SELECT coalesce(jsonb_agg(jsonb_build_object('id', left(r->>'token', 12), 'note', 'the alias is taken: imported without it')), '[]')
      INTO notes FROM jsonb_array_elements(rows) r
     WHERE (EXISTS (SELECT 1 FROM keys k WHERE k.key_alias = r->>'key_alias' AND k.token <> r->>'token')
            OR EXISTS (SELECT 1 FROM jsonb_array_elements(rows) o WHERE o->>'key_alias' = r->>'key_alias'
                          AND o->>'token' < r->>'token'))
       AND NOT EXISTS (SELECT 1 FROM keys k WHERE k.token = r->>'token');
    WITH src AS (
        SELECT *, row_number() OVER (PARTITION BY x->>'key_alias' ORDER BY x->>'token') AS nth
          FROM kt_imp_rows(rows, periods)
         WHERE x->>'token' ~ '^[0-9a-f]{64}$' AND x->>'team_id' IS DISTINCT FROM 'litellm-dashboard'),
    n AS (
        INSERT INTO keys (token, key_name, key_alias, user_id, team_id, organization_id, budget_id, blocked, expires, models,
            aliases, config, permissions, metadata, extra, max_budget_nusd, tpm_limit, rpm_limit, max_parallel_requests,
            model_max_budget, budget_limits, allowed_cache_controls, allowed_routes, policies, access_group_ids, router_settings,
            auto_rotate, rotation_interval, budget_duration, period_kind, period_len_s, period_id, period_end_s, created_at,
            created_by, updated_at, updated_by)
        SELECT x->>'token', x->>'key_name',
               CASE WHEN nth = 1 AND NOT EXISTS (SELECT 1 FROM keys k WHERE k.key_alias = x->>'key_alias')
                    THEN kt_imp_name(x->'key_alias') END,
               kt_imp_id(x->'user_id'), kt_imp_id(x->'team_id'),
               (SELECT organization_id FROM organizations WHERE organization_id = x->>'organization_id'),
               (SELECT budget_id FROM budgets WHERE budget_id = x->>'budget_id'),
               (x->>'blocked')::boolean, kt_imp_ts(x->'expires'), kt_imp_arr(x->'models'), kt_imp_obj(x->'aliases'),
               kt_imp_obj(x->'config'), kt_imp_obj(x->'permissions'),
               kt_imp_obj(x->'metadata') || jsonb_strip_nulls(jsonb_build_object(
                   'throttle_on_budget_exceeded', nullif(x->'throttle_on_budget_exceeded', 'false'),
                   'budget_exceeded_throttle_percentage', x->'budget_exceeded_throttle_percentage')),
               jsonb_strip_nulls(jsonb_build_object('agent_id', x->'agent_id', 'project_id', x->'project_id',
                   'budget_fallbacks', nullif(kt_imp_obj(x->'budget_fallbacks'), '{}'))),
               kt_imp_nusd(x->'max_budget'), kt_imp_int(x->'tpm_limit'), kt_imp_int(x->'rpm_limit'),
               kt_imp_int(x->'max_parallel_requests'), kt_imp_obj(x->'model_max_budget'),
               CASE WHEN jsonb_typeof(x->'budget_limits') = 'array' THEN x->'budget_limits' ELSE '[]' END,
               kt_imp_arr(x->'allowed_cache_controls'), kt_imp_arr(x->'allowed_routes'), kt_imp_arr(x->'policies'),
               kt_imp_arr(x->'access_group_ids'), nullif(kt_imp_obj(x->'router_settings'), '{}'),
               coalesce((x->>'auto_rotate')::boolean, false), x->>'rotation_interval', duration, kind, len_s, id, end_s,
               coalesce(kt_imp_ts(x->'created_at'), now()), x->>'created_by', coalesce(kt_imp_ts(x->'updated_at'), now()),
               x->>'updated_by'
          FROM src ON CONFLICT (token) DO NOTHING RETURNING token, ent, period_id, user_id, team_id),
    u AS (INSERT INTO users (user_id, implicit) SELECT DISTINCT user_id, true FROM n WHERE user_id IS NOT NULL
          ON CONFLICT DO NOTHING RETURNING ent),
    t AS (INSERT INTO teams (team_id, implicit) SELECT DISTINCT team_id, true FROM n WHERE team_id IS NOT NULL
          ON CONFLICT DO NOTHING RETURNING ent),
    m AS (INSERT INTO memberships (team_id, user_id, implicit) SELECT DISTINCT team_id, user_id, true FROM n
           WHERE user_id IS NOT NULL AND team_id IS NOT NULL ON CONFLICT DO NOTHING RETURNING ent),
    o AS (INSERT INTO outbox (ent, op, version) SELECT ent, 'set', 0 FROM (TABLE u UNION ALL TABLE t UNION ALL TABLE m) y)
    SELECT coalesce(jsonb_agg(jsonb_build_object('ent', n.ent, 'pid', n.period_id, 'spend', r.x->'spend', 'fresh', r.fresh)), '[]')
      INTO spent FROM n JOIN kt_imp_rows(rows, periods) r ON r.x->>'token' = n.token;
    RETURN kt_imp_done(jsonb_array_length(rows), spent, notes
        || kt_imp_note(rows, 'token', '$ ? (!(@.token like_regex "^[0-9a-f]{64}$"))', 'the token is no SHA-256: skipped')
        || kt_imp_note(rows, 'token', '$ ? (@.auto_rotate == true)', 'keys are not rotated by themselves')
        || kt_imp_note(rows, 'token', '$ ? ((@.throttle_on_budget_exceeded == true || @.metadata.throttle_on_budget_exceeded == true)
               && (!exists(@.rpm_limit) || @.rpm_limit == null) && (!exists(@.tpm_limit) || @.tpm_limit == null))',
               'throttle_on_budget_exceeded without a rate: the spent budget refuses')
        || kt_imp_note(rows, 'token', '$.metadata.guardrails ? (@.size() > 0)', 'guardrails are kept but not run'));
END $$;
