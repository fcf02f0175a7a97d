-- What a key is bound by follows its team and its list: a second name that the key itself
-- has for a model adds nothing to the list, a key of a team is of the organization of the
-- team, and every organization has a budget.

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


-- Admins of an organization may add anybody to it: that does not make him one of theirs.
ALTER TABLE organization_memberships ADD COLUMN home boolean NOT NULL DEFAULT true;
COMMENT ON COLUMN organization_memberships.home IS 'The user is of this organization: a proxy admin put him there, or it made him';

-- Until now that was not written down: of several the first is his, and of those who run
-- the proxy none.
WITH m AS (UPDATE organization_memberships m SET home = false
            WHERE EXISTS (SELECT 1 FROM users u WHERE u.user_id = m.user_id AND u.user_role LIKE 'proxy_admin%')
               OR EXISTS (SELECT 1 FROM organization_memberships o WHERE o.user_id = m.user_id
                             AND (o.created_at, o.organization_id) < (m.created_at, m.organization_id))
            RETURNING ent)
INSERT INTO outbox (ent, op, version) SELECT ent, 'set', 0 FROM m;

-- A user as somebody else may see him who is no proxy admin: all of it in his own
-- organization, without what he is elsewhere, and anywhere else who he is.
CREATE FUNCTION kt_user_seen(u users, viewer text) RETURNS json LANGUAGE plpgsql STABLE AS $$
DECLARE
    orgs text[];
    own  boolean;
    seen jsonb;
BEGIN
    IF u.user_id = viewer THEN
        RETURN kt_user_json(u);
    END IF;
    SELECT array_agg(m.organization_id), bool_or(m.home) INTO orgs, own
      FROM organization_memberships a JOIN organization_memberships m USING (organization_id)
     WHERE a.user_id = viewer AND m.user_id = u.user_id;
    IF own IS NOT TRUE THEN
        RETURN json_build_object('user_id', u.user_id, 'user_email', u.user_email, 'user_alias', u.user_alias,
                                 'user_role', u.user_role);
    END IF;
    seen := kt_user_json(u)::jsonb;
    RETURN seen || jsonb_build_object('teams', (SELECT coalesce(jsonb_agg(x), '[]') FROM unnest(u.teams) x WHERE EXISTS (
                       SELECT 1 FROM teams t WHERE t.team_id = x AND (t.organization_id = ANY (orgs)
                           OR EXISTS (SELECT 1 FROM memberships m WHERE m.team_id = x AND m.user_id = viewer AND NOT m.implicit)))),
                   'organization_memberships', (SELECT coalesce(jsonb_agg(m), '[]')
                       FROM jsonb_array_elements(seen->'organization_memberships') m
                      WHERE m->>'organization_id' = ANY (orgs)));
END $$;

-- What the audit shows of a member.
CREATE FUNCTION kt_member_audit(team text, member text) RETURNS json LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object('user_id', m.user_id, 'team_id', m.team_id, 'role', m.role,
               'budget_id', m.budget_id, 'max_budget_in_team', kt_usd(b.max_budget_nusd),
               'budget_duration', b.budget_duration, 'tpm_limit', b.tpm_limit, 'rpm_limit', b.rpm_limit,
               'allowed_models', m.allowed_models)::json
      FROM memberships m LEFT JOIN budgets b USING (budget_id)
     WHERE m.team_id = team AND m.user_id = member AND NOT m.implicit $$;


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


-- Keys and organizations that are there.
SELECT kt_bump_keys(ARRAY(SELECT token FROM keys WHERE (cardinality(models) > 0 OR cardinality(access_group_ids) > 0)
                             AND (aliases <> '{}' OR router_settings IS NOT NULL)));
SELECT kt_bump_keys(ARRAY(SELECT k.token FROM keys k JOIN teams t USING (team_id)
                           WHERE k.organization_id <> t.organization_id));
UPDATE keys k SET organization_id = t.organization_id FROM teams t
 WHERE t.team_id = k.team_id AND k.organization_id <> t.organization_id;

DO $$
DECLARE
    o  record;
    id text;
BEGIN
    FOR o IN SELECT organization_id, ent FROM organizations WHERE budget_id IS NULL AND deleted_at IS NULL
             ORDER BY organization_id FOR UPDATE LOOP
        id := gen_random_uuid();
        INSERT INTO budgets (budget_id, created_by, updated_by) VALUES (id, 'default_user_id', 'default_user_id');
        UPDATE organizations SET budget_id = id WHERE organization_id = o.organization_id;
        INSERT INTO outbox (ent, op, version) VALUES (o.ent, 'set', 0);
    END LOOP;
END $$;
