-- What the rows mean: to Redis (kt_policy) and on the wire (kt_*_json).

-- The larger ones are plpgsql: a plan of theirs lives as long as the session, one of an SQL
-- function only as long as the statement.

-- Session settings written by the daemon from controld.yaml when it connects.
CREATE FUNCTION kt_strict(enforcement text) RETURNS boolean
    LANGUAGE sql STABLE AS $$
    SELECT CASE enforcement WHEN 'strict' THEN true WHEN 'last_call' THEN false
           ELSE coalesce(current_setting('keytoll.strict_default', true), 'off') = 'on' END $$;

-- Allow-list with group names resolved; null means all.
CREATE FUNCTION kt_models(m text[], groups text[]) RETURNS json
    LANGUAGE plpgsql STABLE AS $$
BEGIN RETURN (
    SELECT CASE
        WHEN cardinality(m) = 0 AND cardinality(groups) = 0 THEN NULL
        WHEN m && ARRAY['*', 'all-proxy-models', 'all-team-models'] THEN NULL
        ELSE coalesce((SELECT to_json(array_agg(DISTINCT n)) FROM (
                SELECT unnest(m) AS n
                UNION
                SELECT gm.model_name FROM access_groups a
                  JOIN access_group_models gm USING (access_group_id)
                 WHERE a.status = 'active'
                   AND (a.access_group_name = ANY (m) OR a.access_group_id = ANY (groups))) AS x),
             '["no-default-models"]'::json) END);
END $$;

CREATE FUNCTION kt_policy_json(v bigint, t text, alias text, blocked boolean, status kt_status,
    expires timestamptz, enforcement text, gt boolean, lim bigint, soft bigint, rpm bigint,
    tpm bigint, par bigint, models json, kind text, len_s bigint, id bigint, end_s bigint,
    used bigint, refs jsonb, sub json, win json, routes text[], master boolean) RETURNS text
    LANGUAGE plpgsql STABLE AS $$
BEGIN RETURN (
    SELECT json_strip_nulls(json_build_object(
        'v', v, 't', t, 'name', alias,
        'blocked', CASE WHEN blocked THEN true END,
        'status', CASE WHEN status <> 'active' THEN status END,
        'expires_ms', floor(extract(epoch FROM expires) * 1000)::bigint,
        'strict', CASE WHEN kt_strict(enforcement) THEN true END,
        'gt', CASE WHEN gt THEN true END,
        'limit', lim::text, 'soft', soft::text, 'unit', 'nusd',
        'rpm', rpm, 'tpm', tpm, 'par', par,
        'tpm_type', nullif(coalesce(nullif(current_setting('keytoll.tpm_type', true), ''), 'total'), 'total'),
        'models', models,
        'period', CASE WHEN kind <> 'none' THEN json_build_object(
            'kind', kind, 'len_s', len_s,
            'id', kt_period_id(kind, len_s, id, end_s, kt_now_s()),
            'end_s', kt_period_end(kind, len_s, id, end_s, kt_now_s()))
            ELSE json_build_object('kind', 'none', 'len_s', 0, 'id', id, 'end_s', 0) END,
        'refs', refs, 'sub', sub, 'win', win,
        'routes', CASE WHEN cardinality(routes) > 0 THEN to_json(routes) END,
        'master', CASE WHEN master THEN true END,
        'used', used::text))::text);
END $$;

CREATE FUNCTION kt_used(e text, p bigint) RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT coalesce((SELECT used_nusd FROM meters WHERE ent = e AND period_id = p), 0) $$;

CREATE FUNCTION kt_sub(o text) RETURNS json LANGUAGE plpgsql STABLE AS $$
BEGIN RETURN (
    SELECT json_agg(json_build_object('m', model, 'e', ent) ORDER BY ent)
      FROM submeters WHERE owner = o AND kind = 'model');
END $$;

CREATE FUNCTION kt_win(o text) RETURNS json LANGUAGE plpgsql STABLE AS $$
BEGIN RETURN (
    SELECT json_agg(ent ORDER BY ent) FROM submeters WHERE owner = o AND kind = 'window');
END $$;

-- One row per entity: its name in Redis, its version, its current period, its use in
-- that period, and the policy JSON of the frozen ABI (shared/lua/keytoll.lua).
CREATE VIEW kt_policy AS
SELECT k.ent AS name, k.version AS v, p.id AS period_id, p.used,
       kt_policy_json(k.version, 'key', k.key_alias, k.blocked, k.status, k.expires,
           k.budget_enforcement, false, coalesce(k.max_budget_nusd, b.max_budget_nusd),
           coalesce(k.soft_budget_nusd, b.soft_budget_nusd), coalesce(k.rpm_limit, b.rpm_limit),
           coalesce(k.tpm_limit, b.tpm_limit),
           coalesce(k.max_parallel_requests, b.max_parallel_requests),
           kt_models(k.models, k.access_group_ids), k.period_kind, k.period_len_s, k.period_id,
           k.period_end_s, p.used,
           CASE WHEN k.team_id IS NULL THEN to_jsonb(array_remove(ARRAY[
                    kt_ent('user', k.user_id), kt_ent('org', k.organization_id), 'global'], NULL))
                ELSE to_jsonb(array_remove(ARRAY[
                    kt_ent('team', k.team_id),
                    kt_ent('org', coalesce(k.organization_id, t.organization_id)),
                    'member:' || kt_encode(k.team_id) || '/' || kt_encode(k.user_id)], NULL))
                  || CASE WHEN u.rpm_limit IS NOT NULL OR u.tpm_limit IS NOT NULL
                          THEN jsonb_build_array(jsonb_build_object('e', u.ent, 'money', false))
                          ELSE '[]'::jsonb END
                  || '["global"]'::jsonb END,
           kt_sub(k.ent), kt_win(k.ent), k.allowed_routes, false) AS policy
  FROM keys k
  LEFT JOIN budgets b ON b.budget_id = k.budget_id
  LEFT JOIN teams t ON t.team_id = k.team_id
  LEFT JOIN users u ON u.user_id = k.user_id AND k.team_id IS NOT NULL
  CROSS JOIN LATERAL (SELECT i.id, kt_used(k.ent, i.id) AS used FROM (SELECT
      kt_period_id(k.period_kind, k.period_len_s, k.period_id, k.period_end_s, kt_now_s()) AS id) i) p
UNION ALL
SELECT u.ent, u.version, p.id, p.used,
       kt_policy_json(u.version, 'user', u.user_alias, u.blocked, 'active', NULL,
           u.budget_enforcement, false, u.max_budget_nusd, u.soft_budget_nusd, u.rpm_limit,
           u.tpm_limit, u.max_parallel_requests, kt_models(u.models, '{}'), u.period_kind,
           u.period_len_s, u.period_id, u.period_end_s, p.used, NULL, kt_sub(u.ent), kt_win(u.ent),
           '{}', false)
  FROM users u
  CROSS JOIN LATERAL (SELECT i.id, kt_used(u.ent, i.id) AS used FROM (SELECT
      kt_period_id(u.period_kind, u.period_len_s, u.period_id, u.period_end_s, kt_now_s()) AS id) i) p
UNION ALL
SELECT t.ent, t.version, p.id, p.used,
       kt_policy_json(t.version, 'team', t.team_alias, t.blocked, t.status, NULL,
           t.budget_enforcement, true, t.max_budget_nusd, t.soft_budget_nusd, t.rpm_limit,
           t.tpm_limit, t.max_parallel_requests, kt_models(t.models, t.access_group_ids),
           t.period_kind, t.period_len_s, t.period_id, t.period_end_s, p.used, NULL, kt_sub(t.ent),
           kt_win(t.ent), '{}', false)
  FROM teams t
  CROSS JOIN LATERAL (SELECT i.id, kt_used(t.ent, i.id) AS used FROM (SELECT
      kt_period_id(t.period_kind, t.period_len_s, t.period_id, t.period_end_s, kt_now_s()) AS id) i) p
UNION ALL
SELECT m.ent, m.version, p.id, p.used,
       kt_policy_json(m.version, 'member', NULL, false, 'active', NULL,
           coalesce(m.budget_enforcement, t.budget_enforcement), false,
           coalesce(b.max_budget_nusd, d.max_budget_nusd), NULL,
           coalesce(b.rpm_limit, d.rpm_limit), coalesce(b.tpm_limit, d.tpm_limit), NULL, NULL,
           m.period_kind, m.period_len_s, m.period_id, m.period_end_s, p.used, NULL, NULL, NULL,
           '{}', false)
  FROM memberships m
  LEFT JOIN teams t ON t.team_id = m.team_id
  LEFT JOIN budgets b ON b.budget_id = m.budget_id
  LEFT JOIN budgets d ON d.budget_id = t.member_budget_id
  CROSS JOIN LATERAL (SELECT i.id, kt_used(m.ent, i.id) AS used FROM (SELECT
      kt_period_id(m.period_kind, m.period_len_s, m.period_id, m.period_end_s, kt_now_s()) AS id) i) p
UNION ALL
SELECT o.ent, o.version, p.id, p.used,
       kt_policy_json(o.version, 'org', o.organization_alias, o.deleted_at IS NOT NULL, o.status, NULL,
           o.budget_enforcement, false, coalesce(o.max_budget_nusd, b.max_budget_nusd),
           coalesce(o.soft_budget_nusd, b.soft_budget_nusd), coalesce(o.rpm_limit, b.rpm_limit),
           coalesce(o.tpm_limit, b.tpm_limit), o.max_parallel_requests, kt_models(o.models, '{}'),
           o.period_kind, o.period_len_s, o.period_id, o.period_end_s, p.used, NULL, NULL, NULL,
           '{}', false)
  FROM organizations o
  LEFT JOIN budgets b ON b.budget_id = o.budget_id
  CROSS JOIN LATERAL (SELECT i.id, kt_used(o.ent, i.id) AS used FROM (SELECT
      kt_period_id(o.period_kind, o.period_len_s, o.period_id, o.period_end_s, kt_now_s()) AS id) i) p
UNION ALL
SELECT c.ent, c.version, p.id, p.used,
       kt_policy_json(c.version, 'customer', c.alias, c.blocked, 'active', NULL,
           c.budget_enforcement, true, b.max_budget_nusd, b.soft_budget_nusd, b.rpm_limit,
           b.tpm_limit, b.max_parallel_requests, NULL, c.period_kind, c.period_len_s, c.period_id,
           c.period_end_s, p.used, NULL, NULL, NULL, '{}', false)
  FROM customers c
  LEFT JOIN budgets b ON b.budget_id = c.budget_id
  CROSS JOIN LATERAL (SELECT i.id, kt_used(c.ent, i.id) AS used FROM (SELECT
      kt_period_id(c.period_kind, c.period_len_s, c.period_id, c.period_end_s, kt_now_s()) AS id) i) p
UNION ALL
SELECT g.ent, g.version, p.id, p.used,
       kt_policy_json(g.version, 'tag', g.tag_name, false, 'active', NULL,
           g.budget_enforcement, true, b.max_budget_nusd, b.soft_budget_nusd, b.rpm_limit,
           b.tpm_limit, NULL, NULL, g.period_kind, g.period_len_s, g.period_id,
           g.period_end_s, p.used, NULL, NULL, NULL, '{}', false)
  FROM tags g
  LEFT JOIN budgets b ON b.budget_id = g.budget_id
  CROSS JOIN LATERAL (SELECT i.id, kt_used(g.ent, i.id) AS used FROM (SELECT
      kt_period_id(g.period_kind, g.period_len_s, g.period_id, g.period_end_s, kt_now_s()) AS id) i) p
UNION ALL
SELECT s.ent, s.version, p.id, p.used,
       kt_policy_json(s.version, s.kind, NULL, false, 'active', NULL, o.enforcement, s.gt,
           s.limit_nusd, NULL, s.rpm_limit, s.tpm_limit, NULL, NULL, s.period_kind, s.period_len_s,
           s.period_id, s.period_end_s, p.used, NULL, NULL, NULL, '{}', false)
  FROM submeters s
  CROSS JOIN LATERAL (SELECT coalesce(
      (SELECT budget_enforcement FROM keys WHERE ent = s.owner),
      (SELECT budget_enforcement FROM teams WHERE ent = s.owner),
      (SELECT budget_enforcement FROM users WHERE ent = s.owner)) AS enforcement) o
  CROSS JOIN LATERAL (SELECT i.id, kt_used(s.ent, i.id) AS used FROM (SELECT
      kt_period_id(s.period_kind, s.period_len_s, s.period_id, s.period_end_s, kt_now_s()) AS id) i) p
UNION ALL
SELECT x.ent, x.version, p.id, p.used,
       kt_policy_json(x.version, 'global', NULL, false, 'active', NULL, x.budget_enforcement, true,
           x.max_budget_nusd, NULL, NULL, NULL, x.max_parallel_requests, NULL, x.period_kind,
           x.period_len_s, x.period_id, x.period_end_s, p.used, NULL, NULL, NULL, '{}', false)
  FROM proxy x
  CROSS JOIN LATERAL (SELECT i.id, kt_used(x.ent, i.id) AS used FROM (SELECT
      kt_period_id(x.period_kind, x.period_len_s, x.period_id, x.period_end_s, kt_now_s()) AS id) i) p
UNION ALL
SELECT r.ent, r.version, 0, kt_used(r.ent, 0),
       kt_policy_json(r.version, 'key', 'master', false, 'active', NULL, 'last_call', false, NULL,
           NULL, NULL, NULL, NULL, NULL, 'none', 0, 0, 0, kt_used(r.ent, 0), '["global"]'::jsonb,
           NULL, NULL, '{}', true)
  FROM masters r;
COMMENT ON VIEW kt_policy IS 'Every entity as it must stand in Redis';


-- ------------------------------------------------------------------- the wire

CREATE FUNCTION kt_budget_json(b budgets) RETURNS json LANGUAGE plpgsql STABLE AS $$
BEGIN RETURN (
    SELECT CASE WHEN b.budget_id IS NULL THEN NULL ELSE to_json(r) END FROM (SELECT
        b.budget_id AS budget_id, kt_usd(b.max_budget_nusd) AS max_budget,
        kt_usd(b.soft_budget_nusd) AS soft_budget, b.max_parallel_requests AS max_parallel_requests,
        b.tpm_limit AS tpm_limit, b.rpm_limit AS rpm_limit, b.model_max_budget AS model_max_budget,
        b.budget_duration AS budget_duration, kt_ts(b.budget_reset_at) AS budget_reset_at,
        kt_ts(b.created_at) AS created_at, b.created_by AS created_by,
        kt_ts(b.updated_at) AS updated_at, b.updated_by AS updated_by) r);
END $$;

-- budget_reset_at of a row with a period.
CREATE FUNCTION kt_reset_at(kind text, len_s bigint, id bigint, end_s bigint) RETURNS text
    LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN kind <> 'none'
           THEN kt_ts(to_timestamp(kt_period_end(kind, len_s, id, end_s, kt_now_s()))) END $$;

CREATE FUNCTION kt_limits_json(limits jsonb, o text) RETURNS json LANGUAGE plpgsql STABLE AS $$
BEGIN RETURN (
    SELECT CASE WHEN jsonb_array_length(limits) = 0 THEN NULL ELSE
        (SELECT json_agg(json_build_object('budget_duration', l->>'budget_duration',
                    'max_budget', l->'max_budget', 'reset_at',
                    (SELECT kt_reset_at(period_kind, period_len_s, period_id, period_end_s)
                       FROM submeters WHERE ent = o || '~w~' || kt_encode(l->>'budget_duration')))
                ORDER BY i)
           FROM jsonb_array_elements(limits) WITH ORDINALITY AS x(l, i)) END);
END $$;

CREATE FUNCTION kt_key_json(k keys) RETURNS json LANGUAGE plpgsql STABLE AS $$
BEGIN RETURN (
    SELECT to_json(r) FROM (SELECT
        k.token AS token, k.key_name AS key_name, k.key_alias AS key_alias,
        false AS soft_budget_cooldown, '0.0'::json AS spend, kt_ts(k.expires) AS expires,
        k.models AS models, k.aliases AS aliases, k.config AS config,
        k.router_settings AS router_settings, k.user_id AS user_id, k.team_id AS team_id,
        k.permissions AS permissions, k.max_parallel_requests AS max_parallel_requests,
        k.metadata AS metadata, k.blocked AS blocked, k.tpm_limit AS tpm_limit,
        k.rpm_limit AS rpm_limit, kt_usd(k.max_budget_nusd) AS max_budget,
        k.budget_duration AS budget_duration,
        kt_reset_at(k.period_kind, k.period_len_s, k.period_id, k.period_end_s) AS budget_reset_at,
        kt_limits_json(k.budget_limits, k.ent) AS budget_limits,
        k.extra->'budget_fallbacks' AS budget_fallbacks,
        k.allowed_cache_controls AS allowed_cache_controls, k.allowed_routes AS allowed_routes,
        k.policies AS policies, k.access_group_ids AS access_group_ids, '{}'::json AS model_spend,
        k.model_max_budget AS model_max_budget, k.budget_id AS budget_id,
        k.organization_id AS organization_id,
        k.extra->>'object_permission_id' AS object_permission_id,
        k.extra->'object_permission' AS object_permission,
        k.extra->'agent_id' AS agent_id, k.extra->'project_id' AS project_id,
        kt_ts(k.created_at) AS created_at, k.created_by AS created_by,
        kt_ts(k.updated_at) AS updated_at, k.updated_by AS updated_by,
        k.rotation_count AS rotation_count, k.auto_rotate AS auto_rotate,
        k.rotation_interval AS rotation_interval, kt_ts(k.last_rotation_at) AS last_rotation_at,
        kt_ts(k.key_rotation_at) AS key_rotation_at,
        (SELECT kt_budget_json(b) FROM budgets b WHERE b.budget_id = k.budget_id)
            AS litellm_budget_table,
        CASE WHEN kt_strict(k.budget_enforcement) THEN 'strict' ELSE 'last_call' END
            AS budget_enforcement) r);
END $$;

CREATE FUNCTION kt_user_json(u users) RETURNS json LANGUAGE plpgsql STABLE AS $$
BEGIN RETURN (
    SELECT to_json(r) FROM (SELECT
        u.user_id AS user_id, u.user_alias AS user_alias, NULL AS team_id,
        u.sso_user_id AS sso_user_id, u.organization_id AS organization_id,
        u.extra->'object_permission' AS object_permission,
        u.extra->>'object_permission_id' AS object_permission_id, u.teams AS teams,
        u.user_role AS user_role, kt_usd(u.max_budget_nusd) AS max_budget, '0.0'::json AS spend,
        u.user_email AS user_email, u.models AS models, u.metadata AS metadata,
        u.max_parallel_requests AS max_parallel_requests, u.tpm_limit AS tpm_limit,
        u.rpm_limit AS rpm_limit, u.budget_duration AS budget_duration,
        kt_reset_at(u.period_kind, u.period_len_s, u.period_id, u.period_end_s) AS budget_reset_at,
        u.allowed_cache_controls AS allowed_cache_controls, u.policies AS policies,
        '{}'::json AS model_spend, u.model_max_budget AS model_max_budget,
        kt_ts(u.created_at) AS created_at, kt_ts(u.updated_at) AS updated_at,
        coalesce((SELECT json_agg(json_build_object('user_id', m.user_id,
                     'organization_id', m.organization_id, 'user_role', m.user_role, 'spend',
                     '0.0'::json, 'budget_id', m.budget_id, 'created_at', kt_ts(m.created_at),
                     'updated_at', kt_ts(m.updated_at)) ORDER BY m.organization_id)
                    FROM organization_memberships m WHERE m.user_id = u.user_id), '[]'::json)
            AS organization_memberships,
        CASE WHEN kt_strict(u.budget_enforcement) THEN 'strict' ELSE 'last_call' END
            AS budget_enforcement) r);
END $$;

CREATE FUNCTION kt_roles_json(t text) RETURNS json LANGUAGE plpgsql STABLE AS $$
BEGIN RETURN (
    SELECT coalesce(json_agg(json_build_object('role', m.role, 'user_id', m.user_id,
                        'user_email', coalesce(m.user_email, u.user_email)) ORDER BY m.created_at),
                    '[]'::json)
      FROM memberships m LEFT JOIN users u USING (user_id) WHERE m.team_id = t AND NOT m.implicit);
END $$;

CREATE FUNCTION kt_team_json(t teams) RETURNS json LANGUAGE plpgsql STABLE AS $$
BEGIN RETURN (
    SELECT to_json(r) FROM (SELECT
        t.team_id AS team_id, t.team_alias AS team_alias, t.organization_id AS organization_id,
        t.admins AS admins, t.members AS members, kt_roles_json(t.team_id) AS members_with_roles,
        t.metadata AS metadata, kt_usd(t.max_budget_nusd) AS max_budget,
        kt_usd(t.soft_budget_nusd) AS soft_budget, '0.0'::json AS spend, t.models AS models,
        t.max_parallel_requests AS max_parallel_requests, t.tpm_limit AS tpm_limit,
        t.rpm_limit AS rpm_limit, t.budget_duration AS budget_duration,
        kt_reset_at(t.period_kind, t.period_len_s, t.period_id, t.period_end_s) AS budget_reset_at,
        kt_limits_json(t.budget_limits, t.ent) AS budget_limits,
        (t.blocked OR t.status <> 'active') AS blocked, '{}'::json AS model_spend,
        t.model_max_budget AS model_max_budget, t.router_settings AS router_settings,
        t.team_member_permissions AS team_member_permissions,
        t.access_group_ids AS access_group_ids, t.policies AS policies,
        NULL::integer AS model_id,
        CASE WHEN t.model_aliases IS NOT NULL
             THEN json_build_object('model_aliases', t.model_aliases) END AS litellm_model_table,
        false AS allow_team_guardrail_config,
        t.extra->>'object_permission_id' AS object_permission_id,
        t.extra->'object_permission' AS object_permission,
        kt_ts(t.created_at) AS created_at, kt_ts(t.updated_at) AS updated_at,
        CASE WHEN kt_strict(t.budget_enforcement) THEN 'strict' ELSE 'last_call' END
            AS budget_enforcement) r);
END $$;

CREATE FUNCTION kt_membership_json(m memberships) RETURNS json LANGUAGE plpgsql STABLE AS $$
BEGIN RETURN (
    SELECT to_json(r) FROM (SELECT m.user_id AS user_id, m.team_id AS team_id,
        coalesce(m.budget_id, t.member_budget_id) AS budget_id, '0.0'::json AS spend,
        kt_budget_json(b) AS litellm_budget_table
      FROM (SELECT 1) one LEFT JOIN teams t ON t.team_id = m.team_id
      LEFT JOIN budgets b ON b.budget_id = coalesce(m.budget_id, t.member_budget_id)) r);
END $$;

CREATE FUNCTION kt_model_json(m models) RETURNS json LANGUAGE plpgsql STABLE AS $$
BEGIN RETURN (
    SELECT to_json(r) FROM (SELECT m.model_id AS model_id, m.model_name AS model_name,
        m.litellm_params AS litellm_params, m.model_info AS model_info, m.blocked AS blocked,
        kt_ts(m.created_at) AS created_at, m.created_by AS created_by,
        kt_ts(m.updated_at) AS updated_at, m.updated_by AS updated_by) r);
END $$;

CREATE FUNCTION kt_spend_json(l ledger) RETURNS json LANGUAGE plpgsql STABLE AS $$
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
            'requester_ip_address', l.client_ip,
            'status', CASE WHEN l.http_status BETWEEN 200 AND 399 OR l.http_status = 0
                           THEN 'success' ELSE 'failure' END,
            'usage_object', json_build_object('prompt_tokens', l.prompt_tokens,
                'completion_tokens', l.completion_tokens,
                'total_tokens', l.prompt_tokens + l.completion_tokens,
                'cache_read_input_tokens', l.cache_read_tokens,
                'cache_creation_input_tokens', l.cache_write_tokens,
                'reasoning_tokens', l.reasoning_tokens),
            'keytoll', json_build_object('rid', l.rid, 'kind', l.kind, 'ending', l.ending,
                'estimated', l.estimated, 'late', l.late, 'http_status', l.http_status,
                'cost_nusd', l.cost_nusd, 'node', l.node)) AS metadata,
        'False' AS cache_hit, '' AS cache_key, l.tags AS request_tags, l.team_id AS team_id,
        l.organization_id AS organization_id, l.customer_id AS end_user,
        l.client_ip AS requester_ip_address, '{}'::json AS messages, '{}'::json AS response,
        l.rid AS session_id,
        CASE WHEN l.http_status BETWEEN 200 AND 399 OR l.http_status = 0
             THEN 'success' ELSE 'failure' END AS status,
        NULL AS mcp_namespaced_tool_name, NULL AS agent_id,
        '{}'::json AS proxy_server_request
      FROM (SELECT 1) one LEFT JOIN keys k ON k.token = l.token
      LEFT JOIN teams t ON t.team_id = l.team_id) r);
END $$;
