-- Rows of LiteLLM's tables as JSON (litellm-api 12) to rows of ours.  Each function takes
-- a batch and the periods of the durations in it, skips what is there already, and
-- returns what it did.  Running it again does nothing.

CREATE TYPE kt_import AS (imported bigint, existing bigint, notes jsonb);

CREATE FUNCTION kt_imp_nusd(v jsonb) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN jsonb_typeof(v) = 'number' AND (v #>> '{}')::numeric BETWEEN 0 AND 9000000000
           THEN round((v #>> '{}')::numeric * 1000000000)::bigint END $$;

CREATE FUNCTION kt_imp_int(v jsonb) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN jsonb_typeof(v) = 'number' AND (v #>> '{}')::numeric BETWEEN 0 AND 9000000000000000
           THEN trunc((v #>> '{}')::numeric)::bigint END $$;

CREATE FUNCTION kt_imp_arr(v jsonb) RETURNS text[] LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN jsonb_typeof(v) = 'array' THEN ARRAY(SELECT jsonb_array_elements_text(v)) ELSE '{}' END $$;

CREATE FUNCTION kt_imp_obj(v jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE jsonb_typeof(v) WHEN 'object' THEN v
           WHEN 'string' THEN CASE WHEN (v #>> '{}') LIKE '{%' THEN (v #>> '{}')::jsonb ELSE '{}' END
           ELSE '{}' END $$;

-- LiteLLM's timestamps are UTC without saying so.
CREATE FUNCTION kt_imp_ts(v jsonb) RETURNS timestamptz LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN jsonb_typeof(v) = 'string' THEN (v #>> '{}')::timestamp AT TIME ZONE 'UTC' END $$;

CREATE FUNCTION kt_imp_id(v jsonb) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN jsonb_typeof(v) = 'string' AND (v #>> '{}') <> '' AND kt_id_ok(v #>> '{}') THEN v #>> '{}' END $$;

CREATE FUNCTION kt_imp_name(v jsonb) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN jsonb_typeof(v) = 'string' AND kt_name_ok(v #>> '{}') THEN v #>> '{}' END $$;

-- Each row with the period that it is in: ours, but ending when LiteLLM would reset it.
-- `fresh` says that LiteLLM's own reset is overdue, so that nothing was spent yet.
CREATE FUNCTION kt_imp_rows(rows jsonb, periods jsonb)
    RETURNS TABLE (x jsonb, duration text, kind text, len_s bigint, id bigint, end_s bigint, fresh boolean)
    LANGUAGE sql STABLE AS $$
    SELECT r, CASE WHEN p.d IS NOT NULL THEN r->>'budget_duration' END, coalesce(p.kind, 'none'), coalesce(p.len_s, 0),
           coalesce(p.id, 0),
           CASE WHEN p.d IS NULL THEN 0
                WHEN kt_imp_ts(r->'budget_reset_at') > now() AND p.kind = 'fixed'
                     AND extract(epoch FROM kt_imp_ts(r->'budget_reset_at')) > p.id
                THEN floor(extract(epoch FROM kt_imp_ts(r->'budget_reset_at')))::bigint
                ELSE p.end_s END,
           p.d IS NOT NULL AND kt_imp_ts(r->'budget_reset_at') <= now()
      FROM jsonb_array_elements(rows) r
      LEFT JOIN jsonb_to_recordset(periods) AS p(d text, kind text, len_s bigint, id bigint, end_s bigint)
             ON p.d = r->>'budget_duration' $$;

-- What the imported entities have spent, and their way to Redis.
CREATE FUNCTION kt_imp_spend(spent jsonb) RETURNS void LANGUAGE sql AS $$
    INSERT INTO meters (ent, period_id, used_nusd)
    SELECT s->>'ent', (s->>'pid')::bigint, kt_imp_nusd(s->'spend') FROM jsonb_array_elements(spent) s
     WHERE kt_imp_nusd(s->'spend') > 0 AND NOT (s->>'fresh')::boolean
    ON CONFLICT (ent, period_id) DO UPDATE SET used_nusd = meters.used_nusd + EXCLUDED.used_nusd;
    INSERT INTO outbox (ent, op, version) SELECT s->>'ent', 'set', 0 FROM jsonb_array_elements(spent) s $$;

CREATE FUNCTION kt_imp_done(total bigint, spent jsonb, notes jsonb) RETURNS kt_import LANGUAGE plpgsql AS $$
DECLARE
    made bigint := jsonb_array_length(spent);
BEGIN
    PERFORM kt_imp_spend(spent);
    RETURN ROW(made, total - made, coalesce(notes, '[]'))::kt_import;
END $$;

-- What is said about rows of a batch: [{"id", "note"}].
CREATE FUNCTION kt_imp_note(rows jsonb, idcol text, cond jsonpath, note text) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT coalesce(jsonb_agg(jsonb_build_object('id', r->>idcol, 'note', note)), '[]')
      FROM jsonb_array_elements(rows) r WHERE jsonb_path_exists(r, cond) $$;

CREATE FUNCTION kt_import_budgets(rows jsonb, periods jsonb) RETURNS kt_import LANGUAGE plpgsql AS $$
DECLARE
    made bigint;
BEGIN
    WITH n AS (
        INSERT INTO budgets (budget_id, max_budget_nusd, soft_budget_nusd, max_parallel_requests, tpm_limit, rpm_limit,
            model_max_budget, budget_duration, period_kind, period_len_s, period_id, period_end_s, created_at, created_by,
            updated_at, updated_by)
        SELECT kt_imp_id(x->'budget_id'), kt_imp_nusd(x->'max_budget'), kt_imp_nusd(x->'soft_budget'),
               kt_imp_int(x->'max_parallel_requests'), kt_imp_int(x->'tpm_limit'), kt_imp_int(x->'rpm_limit'),
               kt_imp_obj(x->'model_max_budget'), duration, kind, len_s, id, end_s,
               coalesce(kt_imp_ts(x->'created_at'), now()), x->>'created_by',
               coalesce(kt_imp_ts(x->'updated_at'), now()), x->>'updated_by'
          FROM kt_imp_rows(rows, periods) WHERE kt_imp_id(x->'budget_id') IS NOT NULL
        ON CONFLICT DO NOTHING RETURNING 1)
    SELECT count(*) INTO made FROM n;
    RETURN ROW(made, jsonb_array_length(rows) - made, '[]'::jsonb)::kt_import;
END $$;

CREATE FUNCTION kt_import_organizations(rows jsonb, periods jsonb) RETURNS kt_import LANGUAGE plpgsql AS $$
DECLARE
    spent jsonb;
BEGIN
    WITH n AS (
        INSERT INTO organizations (organization_id, organization_alias, budget_id, models, metadata, created_at, created_by,
            updated_at, updated_by)
        SELECT kt_imp_id(x->'organization_id'), kt_imp_name(x->'organization_alias'),
               (SELECT budget_id FROM budgets WHERE budget_id = x->>'budget_id'), kt_imp_arr(x->'models'),
               kt_imp_obj(x->'metadata'), coalesce(kt_imp_ts(x->'created_at'), now()), x->>'created_by',
               coalesce(kt_imp_ts(x->'updated_at'), now()), x->>'updated_by'
          FROM kt_imp_rows(rows, periods) WHERE kt_imp_id(x->'organization_id') IS NOT NULL
        ON CONFLICT DO NOTHING RETURNING organization_id, ent, period_id)
    SELECT coalesce(jsonb_agg(jsonb_build_object('ent', n.ent, 'pid', n.period_id, 'spend', r->'spend', 'fresh', false)), '[]')
      INTO spent FROM n JOIN jsonb_array_elements(rows) r ON r->>'organization_id' = n.organization_id;
    RETURN kt_imp_done(jsonb_array_length(rows), spent, '[]');
END $$;

CREATE FUNCTION kt_import_teams(rows jsonb, periods jsonb) RETURNS kt_import LANGUAGE plpgsql AS $$
DECLARE
    spent jsonb;
BEGIN
    WITH n AS (
        INSERT INTO teams (team_id, team_alias, organization_id, admins, members, metadata, max_budget_nusd, soft_budget_nusd,
            tpm_limit, rpm_limit, max_parallel_requests, models, access_group_ids, team_member_permissions, policies,
            model_max_budget, budget_limits, model_aliases, router_settings, member_budget_id, blocked, budget_duration,
            period_kind, period_len_s, period_id, period_end_s, created_at, updated_at)
        SELECT kt_imp_id(x->'team_id'), kt_imp_name(x->'team_alias'),
               (SELECT organization_id FROM organizations WHERE organization_id = x->>'organization_id'),
               kt_imp_arr(x->'admins'), kt_imp_arr(x->'members'), kt_imp_obj(x->'metadata'), kt_imp_nusd(x->'max_budget'),
               kt_imp_nusd(x->'soft_budget'), kt_imp_int(x->'tpm_limit'), kt_imp_int(x->'rpm_limit'),
               kt_imp_int(x->'max_parallel_requests'), kt_imp_arr(x->'models'), kt_imp_arr(x->'access_group_ids'),
               kt_imp_arr(x->'team_member_permissions'), kt_imp_arr(x->'policies'), kt_imp_obj(x->'model_max_budget'),
               CASE WHEN jsonb_typeof(x->'budget_limits') = 'array' THEN x->'budget_limits' ELSE '[]' END,
               nullif(kt_imp_obj(x->'model_aliases'), '{}'), nullif(kt_imp_obj(x->'router_settings'), '{}'),
               (SELECT budget_id FROM budgets WHERE budget_id = kt_imp_obj(x->'metadata')->>'team_member_budget_id'),
               coalesce((x->>'blocked')::boolean, false), duration, kind, len_s, id, end_s,
               coalesce(kt_imp_ts(x->'created_at'), now()), coalesce(kt_imp_ts(x->'updated_at'), now())
          FROM kt_imp_rows(rows, periods) WHERE kt_imp_id(x->'team_id') IS NOT NULL AND x->>'team_id' <> 'litellm-dashboard'
        ON CONFLICT DO NOTHING RETURNING team_id, ent, period_id)
    SELECT coalesce(jsonb_agg(jsonb_build_object('ent', n.ent, 'pid', n.period_id, 'spend', r.x->'spend', 'fresh', r.fresh)), '[]')
      INTO spent FROM n JOIN kt_imp_rows(rows, periods) r ON r.x->>'team_id' = n.team_id;
    RETURN kt_imp_done(jsonb_array_length(rows), spent, '[]');
END $$;

CREATE FUNCTION kt_import_users(rows jsonb, periods jsonb) RETURNS kt_import LANGUAGE plpgsql AS $$
DECLARE
    spent jsonb;
    notes jsonb;
BEGIN
    SELECT coalesce(jsonb_agg(jsonb_build_object('id', r->>'user_id', 'note', 'another user has the same e-mail address: imported without it')), '[]')
      INTO notes FROM jsonb_array_elements(rows) r
     WHERE (EXISTS (SELECT 1 FROM users u WHERE lower(u.user_email) = lower(r->>'user_email') AND u.user_id <> r->>'user_id')
            OR EXISTS (SELECT 1 FROM jsonb_array_elements(rows) o WHERE lower(o->>'user_email') = lower(r->>'user_email')
                          AND o->>'user_id' < r->>'user_id'))
       AND NOT EXISTS (SELECT 1 FROM users u WHERE u.user_id = r->>'user_id' AND NOT implicit);
    DELETE FROM users u USING jsonb_array_elements(rows) r WHERE u.user_id = r->>'user_id' AND u.implicit;
    WITH src AS (
        SELECT *, row_number() OVER (PARTITION BY lower(x->>'user_email') ORDER BY x->>'user_id') AS nth
          FROM kt_imp_rows(rows, periods)),
    n AS (
        INSERT INTO users (user_id, user_alias, user_email, user_role, password_hash, sso_user_id, organization_id, teams, models,
            metadata, max_budget_nusd, tpm_limit, rpm_limit, max_parallel_requests, allowed_cache_controls, policies,
            model_max_budget, budget_duration, period_kind, period_len_s, period_id, period_end_s, created_at, updated_at)
        SELECT kt_imp_id(x->'user_id'), kt_imp_name(x->'user_alias'),
               CASE WHEN nth = 1 AND NOT EXISTS (SELECT 1 FROM users u WHERE lower(u.user_email) = lower(x->>'user_email'))
                    THEN nullif(kt_imp_name(x->'user_email'), '') END,
               CASE WHEN x->>'user_role' IN ('proxy_admin', 'proxy_admin_viewer', 'org_admin', 'internal_user',
                        'internal_user_viewer', 'team', 'customer') THEN x->>'user_role' END,
               CASE WHEN x->>'password' ~ '^[0-9a-f]{64}$' THEN '$sha256$' || (x->>'password')
                    WHEN x->>'password' LIKE '$scrypt$%' THEN x->>'password' END,
               CASE WHEN NOT EXISTS (SELECT 1 FROM users u WHERE u.sso_user_id = x->>'sso_user_id')
                    THEN kt_imp_id(x->'sso_user_id') END,
               kt_imp_id(x->'organization_id'), kt_imp_arr(x->'teams'), kt_imp_arr(x->'models'), kt_imp_obj(x->'metadata'),
               kt_imp_nusd(x->'max_budget'), kt_imp_int(x->'tpm_limit'), kt_imp_int(x->'rpm_limit'),
               kt_imp_int(x->'max_parallel_requests'), kt_imp_arr(x->'allowed_cache_controls'), kt_imp_arr(x->'policies'),
               kt_imp_obj(x->'model_max_budget'), duration, kind, len_s, id, end_s,
               coalesce(kt_imp_ts(x->'created_at'), now()), coalesce(kt_imp_ts(x->'updated_at'), now())
          FROM src WHERE kt_imp_id(x->'user_id') IS NOT NULL AND x->>'user_id' <> 'litellm-proxy-budget'
        ON CONFLICT (user_id) DO NOTHING RETURNING user_id, ent, period_id)
    SELECT coalesce(jsonb_agg(jsonb_build_object('ent', n.ent, 'pid', n.period_id, 'spend', r.x->'spend', 'fresh', r.fresh)), '[]')
      INTO spent FROM n JOIN kt_imp_rows(rows, periods) r ON r.x->>'user_id' = n.user_id;
    RETURN kt_imp_done(jsonb_array_length(rows), spent, notes
        || kt_imp_note(rows, 'user_id', '$ ? (@.user_id == "litellm-proxy-budget")', 'row of the global budget: its spend is not imported'));
END $$;

-- members_with_roles says who is in a team.
CREATE FUNCTION kt_import_members(rows jsonb, periods jsonb) RETURNS kt_import LANGUAGE plpgsql AS $$
DECLARE
    spent jsonb;
    total bigint;
BEGIN
    SELECT count(*) INTO total FROM jsonb_array_elements(rows) r,
           jsonb_array_elements(CASE jsonb_typeof(r->'members_with_roles') WHEN 'array' THEN r->'members_with_roles' ELSE '[]' END);
    WITH n AS (
        INSERT INTO memberships (team_id, user_id, role, user_email)
        SELECT DISTINCT ON (1, 2) r->>'team_id', m->>'user_id', CASE WHEN m->>'role' = 'admin' THEN 'admin' ELSE 'user' END,
               kt_imp_name(m->'user_email')
          FROM jsonb_array_elements(rows) r,
               jsonb_array_elements(CASE jsonb_typeof(r->'members_with_roles') WHEN 'array' THEN r->'members_with_roles' ELSE '[]' END) m
         WHERE kt_imp_id(m->'user_id') IS NOT NULL AND r->>'team_id' <> 'litellm-dashboard'
           AND EXISTS (SELECT 1 FROM teams t WHERE t.team_id = r->>'team_id')
        ON CONFLICT (team_id, user_id) DO UPDATE SET implicit = false, role = EXCLUDED.role WHERE memberships.implicit
        RETURNING ent)
    SELECT coalesce(jsonb_agg(jsonb_build_object('ent', ent, 'pid', 0, 'spend', 0, 'fresh', true)), '[]') INTO spent FROM n;
    INSERT INTO users (user_id, implicit) SELECT DISTINCT m->>'user_id', true
      FROM jsonb_array_elements(rows) r,
           jsonb_array_elements(CASE jsonb_typeof(r->'members_with_roles') WHEN 'array' THEN r->'members_with_roles' ELSE '[]' END) m
     WHERE kt_imp_id(m->'user_id') IS NOT NULL ON CONFLICT DO NOTHING;
    RETURN kt_imp_done(total, spent, '[]');
END $$;

-- Comes before the members, so that what they spent is there when they are pushed.
CREATE FUNCTION kt_import_memberships(rows jsonb, periods jsonb) RETURNS kt_import LANGUAGE plpgsql AS $$
DECLARE
    spent jsonb;
BEGIN
    WITH n AS (
        INSERT INTO memberships (team_id, user_id, implicit, budget_id)
        SELECT r->>'team_id', r->>'user_id', true, CASE WHEN r->>'budget_id' IS DISTINCT FROM t.member_budget_id
               THEN (SELECT budget_id FROM budgets b WHERE b.budget_id = r->>'budget_id') END
          FROM jsonb_array_elements(rows) r JOIN teams t ON t.team_id = r->>'team_id'
         WHERE kt_imp_id(r->'user_id') IS NOT NULL
        ON CONFLICT DO NOTHING RETURNING team_id, user_id, ent, period_id)
    SELECT coalesce(jsonb_agg(jsonb_build_object('ent', n.ent, 'pid', n.period_id, 'spend', r->'spend', 'fresh', false)), '[]')
      INTO spent FROM n JOIN jsonb_array_elements(rows) r ON r->>'team_id' = n.team_id AND r->>'user_id' = n.user_id;
    RETURN kt_imp_done(jsonb_array_length(rows), spent, '[]');
END $$;

CREATE FUNCTION kt_import_organization_memberships(rows jsonb, periods jsonb) RETURNS kt_import LANGUAGE plpgsql AS $$
DECLARE
    made bigint;
BEGIN
    WITH n AS (
        INSERT INTO organization_memberships (organization_id, user_id, user_role, budget_id)
        SELECT r->>'organization_id', r->>'user_id',
               CASE WHEN r->>'user_role' IN ('org_admin', 'internal_user', 'internal_user_viewer') THEN r->>'user_role' END,
               (SELECT budget_id FROM budgets b WHERE b.budget_id = r->>'budget_id')
          FROM jsonb_array_elements(rows) r
         WHERE kt_imp_id(r->'user_id') IS NOT NULL
           AND EXISTS (SELECT 1 FROM organizations o WHERE o.organization_id = r->>'organization_id')
        ON CONFLICT DO NOTHING RETURNING 1)
    SELECT count(*) INTO made FROM n;
    RETURN ROW(made, jsonb_array_length(rows) - made,
        kt_imp_note(rows, 'user_id', '$ ? (@.budget_id != null)', 'budgets of members of an organization are not enforced'))::kt_import;
END $$;

CREATE FUNCTION kt_import_keys(rows jsonb, periods jsonb) RETURNS kt_import LANGUAGE plpgsql AS $$
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
               kt_imp_obj(x->'config'), kt_imp_obj(x->'permissions'), kt_imp_obj(x->'metadata'),
               jsonb_strip_nulls(jsonb_build_object('agent_id', x->'agent_id', 'project_id', x->'project_id')),
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
        || kt_imp_note(rows, 'token', '$.metadata.guardrails ? (@.size() > 0)', 'guardrails are kept but not run'));
END $$;

CREATE FUNCTION kt_import_customers(rows jsonb, periods jsonb) RETURNS kt_import LANGUAGE plpgsql AS $$
DECLARE
    spent jsonb;
BEGIN
    WITH n AS (
        INSERT INTO customers (user_id, alias, allowed_model_region, default_model, budget_id, blocked)
        SELECT kt_imp_id(r->'user_id'), kt_imp_name(r->'alias'), r->>'allowed_model_region', r->>'default_model',
               (SELECT budget_id FROM budgets b WHERE b.budget_id = r->>'budget_id'), coalesce((r->>'blocked')::boolean, false)
          FROM jsonb_array_elements(rows) r WHERE kt_imp_id(r->'user_id') IS NOT NULL
        ON CONFLICT DO NOTHING RETURNING user_id, ent, period_id)
    SELECT coalesce(jsonb_agg(jsonb_build_object('ent', n.ent, 'pid', n.period_id, 'spend', r->'spend', 'fresh', false)), '[]')
      INTO spent FROM n JOIN jsonb_array_elements(rows) r ON r->>'user_id' = n.user_id;
    RETURN kt_imp_done(jsonb_array_length(rows), spent, '[]');
END $$;

CREATE FUNCTION kt_import_tags(rows jsonb, periods jsonb) RETURNS kt_import LANGUAGE plpgsql AS $$
DECLARE
    spent jsonb;
BEGIN
    WITH n AS (
        INSERT INTO tags (tag_name, description, models, model_info, budget_id, created_by)
        SELECT kt_imp_id(r->'tag_name'), r->>'description', kt_imp_arr(r->'models'), nullif(r->'model_info', 'null'),
               (SELECT budget_id FROM budgets b WHERE b.budget_id = r->>'budget_id'), r->>'created_by'
          FROM jsonb_array_elements(rows) r WHERE kt_imp_id(r->'tag_name') IS NOT NULL
        ON CONFLICT DO NOTHING RETURNING tag_name, ent, period_id)
    SELECT coalesce(jsonb_agg(jsonb_build_object('ent', n.ent, 'pid', n.period_id, 'spend', r->'spend', 'fresh', false)), '[]')
      INTO spent FROM n JOIN jsonb_array_elements(rows) r ON r->>'tag_name' = n.tag_name;
    RETURN kt_imp_done(jsonb_array_length(rows), spent, '[]');
END $$;

CREATE FUNCTION kt_import_access_groups(rows jsonb, periods jsonb) RETURNS kt_import LANGUAGE plpgsql AS $$
DECLARE
    made bigint;
BEGIN
    WITH n AS (
        INSERT INTO access_groups (access_group_id, access_group_name, description)
        SELECT kt_imp_id(r->'access_group_id'), kt_imp_id(r->'access_group_name'), r->>'description'
          FROM jsonb_array_elements(rows) r
         WHERE kt_imp_id(r->'access_group_id') IS NOT NULL AND kt_imp_id(r->'access_group_name') IS NOT NULL
        ON CONFLICT DO NOTHING RETURNING access_group_id),
    m AS (
        INSERT INTO access_group_models (access_group_id, model_name)
        SELECT n.access_group_id, x FROM n JOIN jsonb_array_elements(rows) r ON r->>'access_group_id' = n.access_group_id,
               unnest(kt_imp_arr(r->'access_model_names')) x WHERE kt_id_ok(x) ON CONFLICT DO NOTHING)
    SELECT count(*) INTO made FROM n;
    RETURN ROW(made, jsonb_array_length(rows) - made,
        kt_imp_note(rows, 'access_group_id', '$.access_mcp_server_ids ? (@.size() > 0)', 'MCP servers of a group do not carry over'))::kt_import;
END $$;
