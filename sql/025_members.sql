-- What one person may do: models of a member of a team, a budget of a member of an
-- organization.

-- ------------------------------------------------------- members of organizations

ALTER TABLE organization_memberships
    ADD COLUMN ent text NOT NULL UNIQUE GENERATED ALWAYS AS
        ('orgmember:' || kt_encode(organization_id) || '/' || kt_encode(user_id)) STORED,
    ADD COLUMN budget_enforcement text CHECK (budget_enforcement IN ('strict', 'last_call')),
    ADD COLUMN budget_duration text,
    ADD COLUMN period_kind  text NOT NULL DEFAULT 'none' CHECK (period_kind IN ('none', 'fixed', 'month')),
    ADD COLUMN period_len_s bigint NOT NULL DEFAULT 0 CHECK (period_len_s >= 0),
    ADD COLUMN period_id    bigint NOT NULL DEFAULT 0 CHECK (period_id >= 0),
    ADD COLUMN period_end_s bigint NOT NULL DEFAULT 0 CHECK (period_end_s >= 0),
    ADD COLUMN version      bigint NOT NULL DEFAULT 0,
    ADD CHECK (period_kind = 'none' OR period_end_s > period_id),
    ADD CHECK (period_kind <> 'fixed' OR period_len_s > 0);
COMMENT ON COLUMN organization_memberships.ent IS 'Entity name in Redis, derived';
COMMENT ON COLUMN organization_memberships.version IS 'Renewed by every write; Redis ignores older ones';
COMMENT ON COLUMN organization_memberships.period_id IS 'Start of a period of the linked budget, epoch seconds; meters are kept per period';
COMMENT ON COLUMN organization_memberships.period_end_s IS 'End of that period; later ones follow from kind and length';
COMMENT ON COLUMN organization_memberships.period_kind IS 'none: never renews; fixed: period_len_s each; month: calendar months UTC';
COMMENT ON COLUMN organization_memberships.period_len_s IS 'Length of a fixed period in seconds';
COMMENT ON COLUMN organization_memberships.budget_duration IS 'Never set: the period is that of the linked budget';
COMMENT ON COLUMN organization_memberships.budget_enforcement IS 'strict: used + held never above the limit; last_call: admitted while anything is left; null: that of the budget, then of the organization';
CREATE INDEX organization_memberships_budget ON organization_memberships (budget_id) WHERE budget_id IS NOT NULL;

CREATE TRIGGER organization_memberships_version BEFORE INSERT OR UPDATE ON organization_memberships
    FOR EACH ROW EXECUTE FUNCTION kt_renew_version();
CREATE TRIGGER organization_memberships_period BEFORE INSERT OR UPDATE OF budget_id, budget_duration
    ON organization_memberships FOR EACH ROW EXECUTE FUNCTION kt_linked_period();

-- The keys by which somebody acts in an organization name his membership as long as there
-- is one.  A key that is being made, or a team that moves, is not seen here: it waits for
-- this, and this for it.
CREATE FUNCTION kt_org_members_lock() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        PERFORM 1 FROM organizations WHERE organization_id = OLD.organization_id FOR NO KEY UPDATE;
        RETURN OLD;
    END IF;
    PERFORM 1 FROM organizations WHERE organization_id = NEW.organization_id FOR NO KEY UPDATE;
    RETURN NEW;
END $$;
CREATE TRIGGER organization_memberships_lock BEFORE INSERT OR DELETE ON organization_memberships
    FOR EACH ROW EXECUTE FUNCTION kt_org_members_lock();

CREATE FUNCTION kt_bump_org_keys(org text, member text) RETURNS void LANGUAGE sql AS $$
    SELECT kt_bump_keys(ARRAY(SELECT k.token FROM keys k LEFT JOIN teams t USING (team_id)
                               WHERE k.user_id = member AND coalesce(k.organization_id, t.organization_id) = org)) $$;

CREATE FUNCTION kt_org_members_moved() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        PERFORM kt_bump_org_keys(NEW.organization_id, NEW.user_id);
        INSERT INTO outbox (ent, op, version) VALUES (NEW.ent, 'set', 0);
    ELSE
        PERFORM kt_bump_org_keys(OLD.organization_id, OLD.user_id);
        INSERT INTO outbox (ent, op, version) VALUES (OLD.ent, 'del', nextval('policy_version_seq'));
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER organization_memberships_moved AFTER INSERT OR DELETE ON organization_memberships
    FOR EACH ROW EXECUTE FUNCTION kt_org_members_moved();

-- A key of a team that names an organization names the team's.
CREATE OR REPLACE FUNCTION kt_keys_refs() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.team_id IS NOT NULL THEN
        PERFORM 1 FROM users WHERE user_id = NEW.user_id FOR SHARE;
        PERFORM 1 FROM teams WHERE team_id = NEW.team_id FOR SHARE;
        IF NEW.organization_id IS NOT NULL THEN
            NEW.organization_id := coalesce((SELECT organization_id FROM teams WHERE team_id = NEW.team_id),
                                            NEW.organization_id);
        END IF;
    END IF;
    IF NEW.user_id IS NOT NULL AND (TG_OP = 'INSERT' OR (OLD.user_id, OLD.team_id, OLD.organization_id)
                                    IS DISTINCT FROM (NEW.user_id, NEW.team_id, NEW.organization_id)) THEN
        PERFORM 1 FROM organizations WHERE organization_id = coalesce(NEW.organization_id,
            (SELECT organization_id FROM teams WHERE team_id = NEW.team_id)) FOR SHARE;
    END IF;
    PERFORM 1 FROM budgets WHERE budget_id = NEW.budget_id FOR SHARE;
    RETURN NEW;
END $$;
DROP TRIGGER keys_refs ON keys;
CREATE TRIGGER keys_refs BEFORE INSERT OR UPDATE OF user_id, team_id, organization_id, budget_id ON keys
    FOR EACH ROW EXECUTE FUNCTION kt_keys_refs();

CREATE FUNCTION kt_teams_org() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM organizations WHERE organization_id = NEW.organization_id FOR SHARE;
    RETURN NEW;
END $$;
CREATE TRIGGER teams_org BEFORE UPDATE OF organization_id ON teams FOR EACH ROW
    WHEN (OLD.organization_id IS DISTINCT FROM NEW.organization_id) EXECUTE FUNCTION kt_teams_org();
CREATE TRIGGER teams_org_made BEFORE INSERT ON teams FOR EACH ROW
    WHEN (NEW.organization_id IS NOT NULL) EXECUTE FUNCTION kt_teams_org();

-- Who follows a budget, or the rule of its organization.
CREATE FUNCTION kt_bump_org_members(org text, budget text) RETURNS void LANGUAGE sql AS $$
    WITH l AS (SELECT m.ent FROM organization_memberships m
                WHERE m.organization_id = org OR m.budget_id = budget ORDER BY m.ent FOR NO KEY UPDATE),
         u AS (UPDATE organization_memberships m SET budget_id = budget_id FROM l WHERE m.ent = l.ent RETURNING m.ent)
    INSERT INTO outbox (ent, op, version) SELECT ent, 'set', 0 FROM u $$;

CREATE FUNCTION kt_organizations_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM kt_bump_org_members(NEW.organization_id, NULL);
    RETURN NULL;
END $$;
CREATE TRIGGER organizations_rule AFTER UPDATE ON organizations FOR EACH ROW
    WHEN ((OLD.budget_enforcement, OLD.budget_id) IS DISTINCT FROM (NEW.budget_enforcement, NEW.budget_id))
    EXECUTE FUNCTION kt_organizations_changed();

CREATE OR REPLACE FUNCTION kt_budgets_changed() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    b text := NEW.budget_id;
BEGIN
    WITH l AS (SELECT token FROM keys WHERE budget_id = b ORDER BY token FOR NO KEY UPDATE),
         u AS (UPDATE keys SET budget_id = budget_id FROM l WHERE keys.token = l.token RETURNING ent),
         o AS (UPDATE organizations SET budget_id = budget_id WHERE budget_id = b RETURNING ent),
         g AS (UPDATE tags SET budget_id = budget_id WHERE budget_id = b RETURNING ent)
    INSERT INTO outbox (ent, op, version)
    SELECT ent, 'set', 0 FROM (TABLE u UNION ALL TABLE o UNION ALL TABLE g) x;
    PERFORM kt_bump_members(NULL, b);
    PERFORM kt_bump_org_members(NULL, b);
    IF OLD.budget_enforcement IS DISTINCT FROM NEW.budget_enforcement THEN
        PERFORM kt_bump_org_members(organization_id, NULL) FROM organizations WHERE budget_id = b;
    END IF;
    PERFORM kt_bump_customers(b);
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION kt_budget_shared(b text, but text) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT EXISTS (SELECT 1 FROM keys WHERE budget_id = b AND ent <> but)
        OR EXISTS (SELECT 1 FROM memberships WHERE budget_id = b AND ent <> but)
        OR EXISTS (SELECT 1 FROM organization_memberships WHERE budget_id = b AND ent <> but)
        OR EXISTS (SELECT 1 FROM teams WHERE member_budget_id = b)
        OR EXISTS (SELECT 1 FROM organizations WHERE budget_id = b AND ent <> but)
        OR EXISTS (SELECT 1 FROM customers WHERE budget_id = b AND ent <> but)
        OR EXISTS (SELECT 1 FROM tags WHERE budget_id = b AND ent <> but)
        OR EXISTS (SELECT 1 FROM customer_default WHERE budget_id = b) $$;

CREATE OR REPLACE FUNCTION kt_budget_unlink(b text) RETURNS void LANGUAGE sql AS $$
    WITH k AS (UPDATE keys SET budget_id = NULL WHERE budget_id = b RETURNING ent),
         m AS (UPDATE memberships SET budget_id = NULL WHERE budget_id = b RETURNING ent),
         n AS (UPDATE organization_memberships SET budget_id = NULL WHERE budget_id = b RETURNING ent),
         o AS (UPDATE organizations SET budget_id = NULL WHERE budget_id = b RETURNING ent),
         c AS (UPDATE customers SET budget_id = NULL WHERE budget_id = b RETURNING ent),
         g AS (UPDATE tags SET budget_id = NULL WHERE budget_id = b RETURNING ent)
    INSERT INTO outbox (ent, op, version)
    SELECT ent, 'set', 0 FROM (TABLE k UNION ALL TABLE m UNION ALL TABLE n UNION ALL TABLE o
                               UNION ALL TABLE c UNION ALL TABLE g) x;
    UPDATE teams SET member_budget_id = NULL, metadata = metadata - 'team_member_budget_id'
     WHERE member_budget_id = b $$;

-- The budget to link for a new maximum: the one that is there if nobody else follows it,
-- else a copy of it, so that its other limits go on; null for none.
CREATE FUNCTION kt_own_budget(e text, was text, max_nusd bigint, actor text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    id text := gen_random_uuid();
BEGIN
    IF max_nusd IS NULL THEN
        RETURN NULL;
    ELSIF was IS NULL THEN
        INSERT INTO budgets (budget_id, max_budget_nusd, created_by, updated_by) VALUES (id, max_nusd, actor, actor);
    ELSIF kt_budget_shared(was, e) THEN
        INSERT INTO budgets SELECT (jsonb_populate_record(b, jsonb_build_object('budget_id', id, 'max_budget_nusd', max_nusd,
            'created_at', now(), 'created_by', actor, 'updated_at', now(), 'updated_by', actor))).*
          FROM budgets b WHERE b.budget_id = was;
    ELSE
        UPDATE budgets SET max_budget_nusd = max_nusd, updated_at = now(), updated_by = actor WHERE budget_id = was;
        id := was;
    END IF;
    RETURN id;
END $$;

CREATE OR REPLACE FUNCTION kt_org_member_json(m organization_memberships) RETURNS json LANGUAGE sql STABLE AS $$
    SELECT json_build_object('user_id', m.user_id, 'organization_id', m.organization_id,
        'user_role', m.user_role, 'spend', kt_usd(kt_used(m.ent, kt_period_id(m.period_kind, m.period_len_s,
            m.period_id, m.period_end_s, kt_now_s()))), 'budget_id', m.budget_id,
        'user_email', (SELECT user_email FROM users u WHERE u.user_id = m.user_id),
        'created_at', kt_ts(m.created_at), 'updated_at', kt_ts(m.updated_at),
        'litellm_budget_table',
        (SELECT kt_budget_json(b) FROM budgets b WHERE b.budget_id = m.budget_id)) $$;

CREATE OR REPLACE FUNCTION kt_import_organization_memberships(rows jsonb, periods jsonb) RETURNS kt_import LANGUAGE plpgsql AS $$
DECLARE
    spent jsonb;
BEGIN
    WITH n AS (
        INSERT INTO organization_memberships (organization_id, user_id, user_role, budget_id)
        SELECT r->>'organization_id', r->>'user_id',
               CASE WHEN r->>'user_role' IN ('org_admin', 'internal_user', 'internal_user_viewer') THEN r->>'user_role' END,
               (SELECT budget_id FROM budgets b WHERE b.budget_id = r->>'budget_id')
          FROM jsonb_array_elements(rows) r
         WHERE kt_imp_id(r->'user_id') IS NOT NULL
           AND EXISTS (SELECT 1 FROM organizations o WHERE o.organization_id = r->>'organization_id')
        ON CONFLICT DO NOTHING RETURNING organization_id, user_id, ent, period_id)
    SELECT coalesce(jsonb_agg(jsonb_build_object('ent', n.ent, 'pid', n.period_id, 'spend', r->'spend', 'fresh', false)), '[]')
      INTO spent FROM n JOIN jsonb_array_elements(rows) r
           ON r->>'organization_id' = n.organization_id AND r->>'user_id' = n.user_id;
    RETURN kt_imp_done(jsonb_array_length(rows), spent, '[]');
END $$;


-- ------------------------------------------------------------------ members of teams

ALTER TABLE memberships ADD COLUMN allowed_models text[] NOT NULL DEFAULT '{}'
    CHECK (array_position(allowed_models, NULL) IS NULL);
COMMENT ON COLUMN memberships.allowed_models IS 'What the member may call of what the team may; empty: all of it';
CREATE INDEX memberships_models ON memberships USING gin (allowed_models) WHERE allowed_models <> '{}';

-- A list that has a second name of the team's means the model that it stands for, too.
CREATE FUNCTION kt_and_meant(models json, aliases jsonb, router jsonb) RETURNS json
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    m jsonb;
BEGIN
    IF models IS NULL OR ((aliases IS NULL OR aliases = '{}') AND router IS NULL) THEN
        RETURN models;
    END IF;
    m := kt_alias_map(aliases, router);
    RETURN (SELECT json_agg(n ORDER BY n) FROM (SELECT x.n FROM json_array_elements_text(models) AS x(n)
                                          UNION SELECT m->>y.n FROM json_array_elements_text(models) AS y(n) WHERE m ? y.n) z);
END $$;

CREATE OR REPLACE FUNCTION kt_membership_json(m memberships) RETURNS json LANGUAGE plpgsql STABLE AS $$
BEGIN RETURN (
    SELECT to_json(r) FROM (SELECT m.user_id AS user_id, m.team_id AS team_id,
        coalesce(m.budget_id, t.member_budget_id) AS budget_id, '0.0'::json AS spend,
        kt_budget_json(b) AS litellm_budget_table,
        CASE WHEN cardinality(m.allowed_models) > 0 THEN m.allowed_models END AS allowed_models
      FROM (SELECT 1) one LEFT JOIN teams t ON t.team_id = m.team_id
      LEFT JOIN budgets b ON b.budget_id = coalesce(m.budget_id, t.member_budget_id)) r);
END $$;

-- Lists of members have groups, and names of their team.
CREATE OR REPLACE FUNCTION kt_group_changed(id text, name text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM kt_bump_keys(ARRAY(SELECT token FROM keys
                                WHERE models @> ARRAY[name] OR access_group_ids @> ARRAY[id]));
    WITH t AS (UPDATE teams SET version = version
                WHERE models @> ARRAY[name] OR access_group_ids @> ARRAY[id] RETURNING ent),
         m AS (UPDATE memberships SET version = version
                WHERE allowed_models <> '{}' AND allowed_models @> ARRAY[name] RETURNING ent),
         u AS (UPDATE users SET version = version WHERE models @> ARRAY[name] RETURNING ent),
         o AS (UPDATE organizations SET version = version WHERE models @> ARRAY[name] RETURNING ent)
    INSERT INTO outbox (ent, op, version)
    SELECT ent, 'set', 0 FROM (TABLE t UNION ALL TABLE m UNION ALL TABLE u UNION ALL TABLE o) x;
END $$;

-- The keys go where their team goes.
CREATE FUNCTION kt_move_keys(team text, org text) RETURNS void LANGUAGE sql AS $$
    WITH l AS (SELECT token FROM keys WHERE team_id = team AND organization_id <> coalesce(org, '')
                ORDER BY token FOR NO KEY UPDATE)
    UPDATE keys SET organization_id = org FROM l WHERE keys.token = l.token $$;

CREATE OR REPLACE FUNCTION kt_teams_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND OLD.organization_id IS DISTINCT FROM NEW.organization_id
       OR TG_OP = 'INSERT' AND NEW.organization_id IS NOT NULL THEN
        PERFORM kt_move_keys(NEW.team_id, NEW.organization_id);
    END IF;
    IF TG_OP = 'INSERT' OR (OLD.organization_id, OLD.model_aliases, OLD.router_settings)
       IS DISTINCT FROM (NEW.organization_id, NEW.model_aliases, NEW.router_settings) THEN
        PERFORM kt_bump_keys(ARRAY(SELECT token FROM keys WHERE team_id = NEW.team_id));
    END IF;
    IF TG_OP = 'INSERT' OR (OLD.member_budget_id, OLD.budget_enforcement, OLD.model_aliases, OLD.router_settings)
       IS DISTINCT FROM (NEW.member_budget_id, NEW.budget_enforcement, NEW.model_aliases, NEW.router_settings) THEN
        PERFORM kt_bump_members(NEW.team_id, NULL);
    END IF;
    RETURN NULL;
END $$;


-- ------------------------------------------------------------------------ policies

CREATE OR REPLACE VIEW kt_policy_rows AS
SELECT k.ent AS name, k.version AS v, p.id AS period_id, p.used,
       kt_policy_more(kt_policy_json(k.version, 'key', k.key_alias, k.blocked, k.status, k.expires,
           coalesce(k.budget_enforcement, b.budget_enforcement), false,
           coalesce(k.max_budget_nusd, b.max_budget_nusd),
           coalesce(k.soft_budget_nusd, b.soft_budget_nusd), coalesce(k.rpm_limit, b.rpm_limit),
           coalesce(k.tpm_limit, b.tpm_limit),
           coalesce(k.max_parallel_requests, b.max_parallel_requests),
           kt_and_meant(kt_models(k.models, k.access_group_ids), t.model_aliases, t.router_settings),
           k.period_kind, k.period_len_s, k.period_id,
           k.period_end_s, p.used,
           CASE WHEN k.team_id IS NULL THEN to_jsonb(array_remove(ARRAY[
                    kt_ent('org', k.organization_id), kt_ent('user', k.user_id), om.ent, 'global'], NULL))
                ELSE to_jsonb(array_remove(ARRAY[
                    kt_ent('team', k.team_id),
                    kt_ent('org', coalesce(k.organization_id, t.organization_id)),
                    'member:' || kt_encode(k.team_id) || '/' || kt_encode(k.user_id), om.ent], NULL))
                  || CASE WHEN u.rpm_limit IS NOT NULL OR u.tpm_limit IS NOT NULL
                               OR u.max_parallel_requests IS NOT NULL
                          THEN jsonb_build_array(jsonb_build_object('e', u.ent, 'money', false))
                          ELSE '[]'::jsonb END
                  || '["global"]'::jsonb END,
           kt_sub(k.ent), kt_win(k.ent), k.allowed_routes, false), a.every) AS policy
  FROM keys k
  LEFT JOIN budgets b ON b.budget_id = k.budget_id
  LEFT JOIN teams t ON t.team_id = k.team_id
  LEFT JOIN users u ON u.user_id = k.user_id AND k.team_id IS NOT NULL
  LEFT JOIN organization_memberships om ON om.user_id = k.user_id
            AND om.organization_id = coalesce(k.organization_id, t.organization_id)
  CROSS JOIN LATERAL (SELECT kt_aliases(k.aliases, k.router_settings, t.model_aliases,
                                        t.router_settings) AS every) a
  CROSS JOIN LATERAL (SELECT i.id, kt_used(k.ent, i.id) AS used FROM (SELECT
      kt_period_id(k.period_kind, k.period_len_s, k.period_id, k.period_end_s, kt_now_s()) AS id) i) p
UNION ALL
SELECT u.ent, u.version, p.id, p.used,
       kt_policy_json(u.version, 'user', u.user_alias, u.blocked, 'active', NULL,
           u.budget_enforcement, false, u.max_budget_nusd, u.soft_budget_nusd, u.rpm_limit,
           u.tpm_limit, u.max_parallel_requests, kt_user_models(u.models), u.period_kind,
           u.period_len_s, u.period_id, u.period_end_s, p.used, NULL, kt_sub(u.ent), kt_win(u.ent),
           '{}', false)
  FROM users u
  CROSS JOIN LATERAL (SELECT i.id, kt_used(u.ent, i.id) AS used FROM (SELECT
      kt_period_id(u.period_kind, u.period_len_s, u.period_id, u.period_end_s, kt_now_s()) AS id) i) p
UNION ALL
SELECT t.ent, t.version, p.id, p.used,
       kt_policy_json(t.version, 'team', t.team_alias, t.blocked, t.status, NULL,
           t.budget_enforcement, true, t.max_budget_nusd, t.soft_budget_nusd, t.rpm_limit,
           t.tpm_limit, t.max_parallel_requests,
           kt_and_targets(kt_allowed(t.models, t.access_group_ids, ARRAY['*', 'all-proxy-models']),
                          kt_alias_map(t.model_aliases, t.router_settings)),
           t.period_kind, t.period_len_s, t.period_id, t.period_end_s, p.used, NULL, kt_sub(t.ent),
           kt_win(t.ent), '{}', false)
  FROM teams t
  CROSS JOIN LATERAL (SELECT i.id, kt_used(t.ent, i.id) AS used FROM (SELECT
      kt_period_id(t.period_kind, t.period_len_s, t.period_id, t.period_end_s, kt_now_s()) AS id) i) p
UNION ALL
SELECT m.ent, m.version, p.id, p.used,
       kt_policy_json(m.version, 'member', NULL, false, 'active', NULL,
           coalesce(m.budget_enforcement, b.budget_enforcement, t.budget_enforcement), false,
           CASE WHEN m.budget_id IS NULL THEN d.max_budget_nusd ELSE b.max_budget_nusd END, NULL,
           CASE WHEN m.budget_id IS NULL THEN d.rpm_limit ELSE b.rpm_limit END,
           CASE WHEN m.budget_id IS NULL THEN d.tpm_limit ELSE b.tpm_limit END,
           CASE WHEN m.budget_id IS NULL THEN d.max_parallel_requests ELSE b.max_parallel_requests END,
           kt_and_meant(kt_allowed(m.allowed_models, '{}', ARRAY['*', 'all-proxy-models', 'all-team-models']),
                        t.model_aliases, t.router_settings),
           m.period_kind, m.period_len_s, m.period_id, m.period_end_s, p.used, NULL, NULL,
           NULL, '{}', false)
  FROM memberships m
  LEFT JOIN teams t ON t.team_id = m.team_id
  LEFT JOIN budgets b ON b.budget_id = m.budget_id
  LEFT JOIN budgets d ON d.budget_id = t.member_budget_id
  CROSS JOIN LATERAL (SELECT i.id, kt_used(m.ent, i.id) AS used FROM (SELECT
      kt_period_id(m.period_kind, m.period_len_s, m.period_id, m.period_end_s, kt_now_s()) AS id) i) p
UNION ALL
SELECT m.ent, m.version, p.id, p.used,
       kt_policy_json(m.version, 'orgmember', NULL, false, 'active', NULL,
           coalesce(m.budget_enforcement, b.budget_enforcement, o.budget_enforcement, ob.budget_enforcement),
           false, b.max_budget_nusd, b.soft_budget_nusd, b.rpm_limit, b.tpm_limit, b.max_parallel_requests,
           NULL, m.period_kind, m.period_len_s, m.period_id, m.period_end_s, p.used, NULL, NULL,
           NULL, '{}', false)
  FROM organization_memberships m
  JOIN organizations o USING (organization_id)
  LEFT JOIN budgets b ON b.budget_id = m.budget_id
  LEFT JOIN budgets ob ON ob.budget_id = o.budget_id
  CROSS JOIN LATERAL (SELECT i.id, kt_used(m.ent, i.id) AS used FROM (SELECT
      kt_period_id(m.period_kind, m.period_len_s, m.period_id, m.period_end_s, kt_now_s()) AS id) i) p
UNION ALL
SELECT o.ent, o.version, p.id, p.used,
       kt_policy_json(o.version, 'org', o.organization_alias, o.deleted_at IS NOT NULL, o.status, NULL,
           coalesce(o.budget_enforcement, b.budget_enforcement), false,
           coalesce(o.max_budget_nusd, b.max_budget_nusd),
           coalesce(o.soft_budget_nusd, b.soft_budget_nusd), coalesce(o.rpm_limit, b.rpm_limit),
           coalesce(o.tpm_limit, b.tpm_limit),
           coalesce(o.max_parallel_requests, b.max_parallel_requests),
           kt_allowed(o.models, '{}', ARRAY['*', 'all-proxy-models']),
           o.period_kind, o.period_len_s, o.period_id, o.period_end_s, p.used, NULL, kt_sub(o.ent),
           NULL, '{}', false)
  FROM organizations o
  LEFT JOIN budgets b ON b.budget_id = o.budget_id
  CROSS JOIN LATERAL (SELECT i.id, kt_used(o.ent, i.id) AS used FROM (SELECT
      kt_period_id(o.period_kind, o.period_len_s, o.period_id, o.period_end_s, kt_now_s()) AS id) i) p
UNION ALL
SELECT c.ent, c.version, p.id, p.used,
       kt_policy_json(c.version, 'customer', c.alias, c.blocked, 'active', NULL,
           coalesce(c.budget_enforcement, b.budget_enforcement), true, b.max_budget_nusd,
           b.soft_budget_nusd, b.rpm_limit, b.tpm_limit, b.max_parallel_requests, NULL,
           c.period_kind, c.period_len_s, c.period_id,
           c.period_end_s, p.used, NULL, kt_sub(c.ent), NULL, '{}', false)
  FROM customers c
  LEFT JOIN customer_default d ON c.budget_id IS NULL
  LEFT JOIN budgets b ON b.budget_id = coalesce(c.budget_id, d.budget_id)
  CROSS JOIN LATERAL (SELECT i.id, kt_used(c.ent, i.id) AS used FROM (SELECT
      kt_period_id(c.period_kind, c.period_len_s, c.period_id, c.period_end_s, kt_now_s()) AS id) i) p
UNION ALL
SELECT d.ent, d.version, p.id, 0,
       kt_policy_json(d.version, 'customer', NULL, false, 'active', NULL,
           b.budget_enforcement, true, b.max_budget_nusd,
           b.soft_budget_nusd, b.rpm_limit, b.tpm_limit, b.max_parallel_requests, NULL,
           d.period_kind, d.period_len_s, d.period_id,
           d.period_end_s, 0, NULL, NULL, NULL, '{}', false)
  FROM customer_default d
  LEFT JOIN budgets b ON b.budget_id = d.budget_id
  CROSS JOIN LATERAL (SELECT
      kt_period_id(d.period_kind, d.period_len_s, d.period_id, d.period_end_s, kt_now_s()) AS id) p
UNION ALL
SELECT g.ent, g.version, p.id, p.used,
       kt_policy_json(g.version, 'tag', g.tag_name, false, 'active', NULL,
           coalesce(g.budget_enforcement, b.budget_enforcement), true, b.max_budget_nusd,
           b.soft_budget_nusd, b.rpm_limit, b.tpm_limit, b.max_parallel_requests, NULL,
           g.period_kind, g.period_len_s, g.period_id,
           g.period_end_s, p.used, NULL, kt_sub(g.ent), NULL, '{}', false)
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
      (SELECT coalesce(x.budget_enforcement, b.budget_enforcement) FROM keys x
         LEFT JOIN budgets b USING (budget_id) WHERE ent = s.owner),
      (SELECT budget_enforcement FROM teams WHERE ent = s.owner),
      (SELECT budget_enforcement FROM users WHERE ent = s.owner),
      (SELECT coalesce(x.budget_enforcement, b.budget_enforcement) FROM organizations x
         LEFT JOIN budgets b USING (budget_id) WHERE ent = s.owner),
      (SELECT coalesce(x.budget_enforcement, b.budget_enforcement) FROM customers x
         LEFT JOIN budgets b USING (budget_id) WHERE ent = s.owner),
      (SELECT coalesce(x.budget_enforcement, b.budget_enforcement) FROM tags x
         LEFT JOIN budgets b USING (budget_id) WHERE ent = s.owner)) AS enforcement) o
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


CREATE OR REPLACE VIEW kt_soft AS
SELECT ent, kt_period_id(period_kind, period_len_s, period_id, period_end_s, kt_now_s()) AS period_id, soft
  FROM (
    SELECT ent, period_kind, period_len_s, period_id, period_end_s, soft_budget_nusd AS soft
      FROM keys WHERE soft_budget_nusd IS NOT NULL
    UNION ALL
    SELECT ent, period_kind, period_len_s, period_id, period_end_s, soft_budget_nusd
      FROM teams WHERE soft_budget_nusd IS NOT NULL
    UNION ALL
    SELECT ent, period_kind, period_len_s, period_id, period_end_s, soft_budget_nusd
      FROM users WHERE soft_budget_nusd IS NOT NULL
    UNION ALL
    SELECT ent, period_kind, period_len_s, period_id, period_end_s, soft_budget_nusd
      FROM organizations WHERE soft_budget_nusd IS NOT NULL
    UNION ALL
    SELECT x.ent, x.period_kind, x.period_len_s, x.period_id, x.period_end_s, b.soft_budget_nusd
      FROM budgets b CROSS JOIN LATERAL (
        SELECT k.ent, k.period_kind, k.period_len_s, k.period_id, k.period_end_s
          FROM keys k WHERE k.budget_id = b.budget_id AND k.soft_budget_nusd IS NULL
        UNION ALL
        SELECT o.ent, o.period_kind, o.period_len_s, o.period_id, o.period_end_s
          FROM organizations o WHERE o.budget_id = b.budget_id AND o.soft_budget_nusd IS NULL
        UNION ALL
        SELECT m.ent, m.period_kind, m.period_len_s, m.period_id, m.period_end_s
          FROM memberships m WHERE m.budget_id = b.budget_id
        UNION ALL
        SELECT m.ent, m.period_kind, m.period_len_s, m.period_id, m.period_end_s
          FROM teams t JOIN memberships m USING (team_id)
         WHERE t.member_budget_id = b.budget_id AND m.budget_id IS NULL
        UNION ALL
        SELECT m.ent, m.period_kind, m.period_len_s, m.period_id, m.period_end_s
          FROM organization_memberships m WHERE m.budget_id = b.budget_id
        UNION ALL
        SELECT c.ent, c.period_kind, c.period_len_s, c.period_id, c.period_end_s
          FROM customers c WHERE c.budget_id = b.budget_id
        UNION ALL
        SELECT c.ent, c.period_kind, c.period_len_s, c.period_id, c.period_end_s
          FROM customer_default d, customers c
         WHERE d.budget_id = b.budget_id AND c.budget_id IS NULL
        UNION ALL
        SELECT g.ent, g.period_kind, g.period_len_s, g.period_id, g.period_end_s
          FROM tags g WHERE g.budget_id = b.budget_id) x
     WHERE b.soft_budget_nusd IS NOT NULL) s;


-- Redis learns of the new entities, and the keys name them.
UPDATE organization_memberships SET budget_id = budget_id;
INSERT INTO outbox (ent, op, version) SELECT ent, 'set', 0 FROM organization_memberships;
SELECT kt_bump_org_keys(organization_id, user_id) FROM organization_memberships;
SELECT kt_bump_keys(ARRAY(SELECT k.token FROM keys k JOIN teams t USING (team_id) WHERE cardinality(k.models) > 0
                             AND (t.model_aliases IS NOT NULL OR t.router_settings IS NOT NULL)));
