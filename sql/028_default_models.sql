-- The default budget of end users limits models too: its meters per model are those of
-- default:customer, and whoever follows it has meters of his own that are like them.

-- The meters of the default like d, or all where d is null, for the end user, or for all.
CREATE FUNCTION kt_follow_default(d text, who text) RETURNS void LANGUAGE sql AS $$
    WITH m AS (
        INSERT INTO submeters (ent, owner, kind, model, limit_nusd, tpm_limit, rpm_limit, gt, budget_duration,
                               period_kind, period_len_s, period_id, period_end_s)
        SELECT c.ent || substr(s.ent, length(s.owner) + 1), c.ent, s.kind, s.model, s.limit_nusd, s.tpm_limit,
               s.rpm_limit, s.gt, s.budget_duration, s.period_kind, s.period_len_s, s.period_id, s.period_end_s
          FROM submeters s CROSS JOIN customers c
         WHERE s.owner = 'default:customer' AND (d IS NULL OR s.ent = d)
           AND c.budget_id IS NULL AND (who IS NULL OR c.ent = who)
         ORDER BY 1
        ON CONFLICT (ent) DO UPDATE SET limit_nusd = EXCLUDED.limit_nusd, tpm_limit = EXCLUDED.tpm_limit,
            rpm_limit = EXCLUDED.rpm_limit, budget_duration = EXCLUDED.budget_duration,
            period_id = kt_period_id(submeters.period_kind, submeters.period_len_s, submeters.period_id,
                                     submeters.period_end_s, kt_now_s()),
            period_kind = EXCLUDED.period_kind, period_len_s = EXCLUDED.period_len_s,
            period_end_s = EXCLUDED.period_end_s
        RETURNING ent)
    INSERT INTO outbox (ent, op, version) SELECT ent, 'set', 0 FROM m $$;

-- An end user that is being made is not seen here: it waits for this, and this for it.
CREATE FUNCTION kt_default_model_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM customer_default FOR NO KEY UPDATE;
    IF TG_OP = 'DELETE' THEN
        WITH g AS (DELETE FROM submeters s USING customers c
                    WHERE s.owner = c.ent AND s.model = OLD.model AND c.budget_id IS NULL RETURNING s.ent)
        INSERT INTO outbox (ent, op, version)
        SELECT ent, 'del', nextval('policy_version_seq') FROM (SELECT OLD.ent UNION ALL TABLE g) x;
    ELSE
        INSERT INTO outbox (ent, op, version) VALUES (NEW.ent, 'set', 0);
        PERFORM kt_follow_default(NEW.ent, NULL);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER submeters_default AFTER INSERT OR UPDATE ON submeters FOR EACH ROW
    WHEN (NEW.owner = 'default:customer') EXECUTE FUNCTION kt_default_model_changed();
CREATE TRIGGER submeters_default_gone AFTER DELETE ON submeters FOR EACH ROW
    WHEN (OLD.owner = 'default:customer') EXECUTE FUNCTION kt_default_model_changed();

CREATE FUNCTION kt_customer_follows() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM customer_default FOR SHARE;
    PERFORM kt_follow_default(NULL, NEW.ent);
    RETURN NULL;
END $$;
CREATE TRIGGER customers_follow AFTER INSERT ON customers FOR EACH ROW
    WHEN (NEW.budget_id IS NULL) EXECUTE FUNCTION kt_customer_follows();
CREATE TRIGGER customers_follow_again AFTER UPDATE ON customers FOR EACH ROW
    WHEN (OLD.budget_id IS NOT NULL AND NEW.budget_id IS NULL) EXECUTE FUNCTION kt_customer_follows();

CREATE FUNCTION kt_customer_default_gone() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM submeters WHERE owner = OLD.ent;
    RETURN NULL;
END $$;
CREATE TRIGGER customer_default_gone AFTER DELETE ON customer_default
    FOR EACH ROW EXECUTE FUNCTION kt_customer_default_gone();

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
           d.period_end_s, 0, NULL, kt_sub(d.ent), NULL, '{}', false)
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
         LEFT JOIN customer_default d ON x.budget_id IS NULL
         LEFT JOIN budgets b ON b.budget_id = coalesce(x.budget_id, d.budget_id) WHERE x.ent = s.owner),
      (SELECT b.budget_enforcement FROM customer_default x
         JOIN budgets b USING (budget_id) WHERE ent = s.owner),
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
