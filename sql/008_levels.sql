-- Levels in full: budgets have a period of their own that every linked row follows, end
-- users without a row have the default budget, keys know the aliases that apply to them,
-- model access groups, soft budgets.

-- ------------------------------------------------------------------ budgets

ALTER TABLE budgets
    ADD COLUMN budget_enforcement text CHECK (budget_enforcement IN ('strict', 'last_call')),
    ADD COLUMN period_kind  text NOT NULL DEFAULT 'none' CHECK (period_kind IN ('none', 'fixed', 'month')),
    ADD COLUMN period_len_s bigint NOT NULL DEFAULT 0 CHECK (period_len_s >= 0),
    ADD COLUMN period_id    bigint NOT NULL DEFAULT 0 CHECK (period_id >= 0),
    ADD COLUMN period_end_s bigint NOT NULL DEFAULT 0 CHECK (period_end_s >= 0),
    ADD CHECK (period_kind = 'none' OR period_end_s > period_id),
    ADD CHECK (period_kind <> 'fixed' OR period_len_s > 0);
COMMENT ON COLUMN budgets.period_id IS 'Start of a period of budget_duration, epoch seconds; linked rows take it over';
COMMENT ON COLUMN budgets.period_end_s IS 'End of that period; later ones follow from kind and length';
COMMENT ON COLUMN budgets.period_kind IS 'none: never renews; fixed: period_len_s each; month: calendar months UTC';
COMMENT ON COLUMN budgets.period_len_s IS 'Length of a fixed period in seconds';
COMMENT ON COLUMN budgets.budget_enforcement IS 'Of linked rows that do not choose themselves';

UPDATE budgets b SET period_kind = m.period_kind, period_len_s = m.period_len_s,
       period_id = m.period_id, period_end_s = m.period_end_s
  FROM memberships m LEFT JOIN teams t USING (team_id)
 WHERE b.budget_duration IS NOT NULL AND m.period_kind <> 'none'
   AND coalesce(m.budget_id, t.member_budget_id) = b.budget_id;

CREATE INDEX memberships_budget ON memberships (budget_id) WHERE budget_id IS NOT NULL;
CREATE INDEX customers_budget ON customers (budget_id);
CREATE INDEX teams_member_budget ON teams (member_budget_id) WHERE member_budget_id IS NOT NULL;

-- What end users without a row, or without a budget of their own, have.
CREATE TABLE customer_default (
    ent                text PRIMARY KEY DEFAULT 'default:customer' CHECK (ent = 'default:customer'),
    budget_id          text NOT NULL,
    budget_duration    text,
    period_kind        text NOT NULL DEFAULT 'none',
    period_len_s       bigint NOT NULL DEFAULT 0,
    period_id          bigint NOT NULL DEFAULT 0,
    period_end_s       bigint NOT NULL DEFAULT 0,
    version            bigint NOT NULL DEFAULT 0
);
COMMENT ON TABLE customer_default IS 'The default budget of end users; one row when one is configured';
COMMENT ON COLUMN customer_default.budget_id IS 'May be made later; until then it limits nothing';
CREATE TRIGGER customer_default_version BEFORE INSERT OR UPDATE ON customer_default
    FOR EACH ROW EXECUTE FUNCTION kt_renew_version();

-- A row without a duration of its own has the period of its budget.  A new rule never
-- empties the period that is running.
CREATE FUNCTION kt_linked_period() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    id text := NEW.budget_id;
    b budgets;
BEGIN
    IF TG_TABLE_NAME = 'memberships' THEN
        IF id IS NULL THEN
            SELECT member_budget_id INTO id FROM teams WHERE team_id = NEW.team_id;
        END IF;
    ELSIF NEW.budget_duration IS NOT NULL THEN
        RETURN NEW;
    ELSIF TG_TABLE_NAME = 'customers' AND id IS NULL THEN
        SELECT budget_id INTO id FROM customer_default;
    END IF;
    SELECT * INTO b FROM budgets WHERE budget_id = id FOR SHARE;
    IF TG_OP = 'UPDATE' THEN
        NEW.period_id := kt_period_id(OLD.period_kind, OLD.period_len_s, OLD.period_id,
                                      OLD.period_end_s, kt_now_s());
    ELSE
        NEW.period_id := coalesce(kt_period_id(b.period_kind, b.period_len_s, b.period_id,
                                               b.period_end_s, kt_now_s()), 0);
    END IF;
    NEW.period_kind := coalesce(b.period_kind, 'none');
    NEW.period_len_s := coalesce(b.period_len_s, 0);
    NEW.period_end_s := coalesce(kt_period_end(b.period_kind, b.period_len_s, b.period_id,
                                               b.period_end_s, kt_now_s()), 0);
    IF TG_TABLE_NAME = 'memberships' THEN
        NEW.budget_duration := b.budget_duration;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER keys_period BEFORE INSERT OR UPDATE OF budget_id, budget_duration ON keys
    FOR EACH ROW EXECUTE FUNCTION kt_linked_period();
CREATE TRIGGER organizations_period BEFORE INSERT OR UPDATE OF budget_id, budget_duration ON organizations
    FOR EACH ROW EXECUTE FUNCTION kt_linked_period();
CREATE TRIGGER customers_period BEFORE INSERT OR UPDATE OF budget_id, budget_duration ON customers
    FOR EACH ROW EXECUTE FUNCTION kt_linked_period();
CREATE TRIGGER tags_period BEFORE INSERT OR UPDATE OF budget_id, budget_duration ON tags
    FOR EACH ROW EXECUTE FUNCTION kt_linked_period();
CREATE TRIGGER memberships_period BEFORE INSERT OR UPDATE OF budget_id, budget_duration ON memberships
    FOR EACH ROW EXECUTE FUNCTION kt_linked_period();
CREATE TRIGGER customer_default_period BEFORE INSERT OR UPDATE OF budget_id ON customer_default
    FOR EACH ROW EXECUTE FUNCTION kt_linked_period();

-- Everything that follows a budget takes its new rule and a new version, and is pushed.
CREATE OR REPLACE FUNCTION kt_bump_members(team text, budget text) RETURNS void LANGUAGE sql AS $$
    WITH l AS (SELECT m.ent FROM memberships m JOIN teams t USING (team_id)
                WHERE m.team_id = team OR m.budget_id = budget
                   OR (m.budget_id IS NULL AND t.member_budget_id = budget)
                ORDER BY m.ent FOR NO KEY UPDATE OF m),
         u AS (UPDATE memberships SET budget_id = budget_id FROM l WHERE memberships.ent = l.ent
               RETURNING memberships.ent)
    INSERT INTO outbox (ent, op, version) SELECT ent, 'set', 0 FROM u $$;

CREATE FUNCTION kt_bump_customers(budget text) RETURNS void LANGUAGE sql AS $$
    WITH l AS (SELECT ent FROM customers
                WHERE budget_id = budget OR (budget_id IS NULL AND budget =
                      (SELECT budget_id FROM customer_default))
                ORDER BY ent FOR NO KEY UPDATE),
         u AS (UPDATE customers SET budget_id = budget_id FROM l WHERE customers.ent = l.ent
               RETURNING customers.ent),
         d AS (UPDATE customer_default SET budget_id = budget_id WHERE budget_id = budget
               RETURNING ent)
    INSERT INTO outbox (ent, op, version)
    SELECT ent, 'set', 0 FROM (TABLE d UNION ALL TABLE u) x $$;

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
    PERFORM kt_bump_customers(b);
    RETURN NULL;
END $$;
CREATE TRIGGER budgets_made AFTER INSERT ON budgets
    FOR EACH ROW EXECUTE FUNCTION kt_budgets_changed();

-- Another default: the end users that follow it.
CREATE FUNCTION kt_customer_default_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    WITH u AS (UPDATE customers SET budget_id = NULL WHERE budget_id IS NULL RETURNING ent)
    INSERT INTO outbox (ent, op, version) SELECT ent, 'set', 0 FROM u;
    IF TG_OP = 'DELETE' THEN
        INSERT INTO outbox (ent, op, version) VALUES (OLD.ent, 'del', nextval('policy_version_seq'));
    ELSE
        INSERT INTO outbox (ent, op, version) VALUES (NEW.ent, 'set', 0);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER customer_default_moved AFTER UPDATE ON customer_default FOR EACH ROW
    WHEN (OLD.budget_id IS DISTINCT FROM NEW.budget_id) EXECUTE FUNCTION kt_customer_default_changed();
CREATE TRIGGER customer_default_made AFTER INSERT OR DELETE ON customer_default
    FOR EACH ROW EXECUTE FUNCTION kt_customer_default_changed();

-- The reverse of kt_encode(); null for what it never makes.
CREATE FUNCTION kt_decode(id text) RETURNS text LANGUAGE plpgsql IMMUTABLE STRICT AS $$
BEGIN
    IF id !~ '%' THEN
        RETURN id;
    END IF;
    RETURN (SELECT convert_from(string_agg(CASE WHEN m[1] ~ '^%..$' THEN decode(substr(m[1], 2), 'hex')
                                            ELSE convert_to(m[1], 'UTF8') END, ''::bytea ORDER BY i), 'UTF8')
              FROM regexp_matches(id, '%[0-9A-F]{2}|[^%]+', 'g') WITH ORDINALITY AS x(m, i));
EXCEPTION WHEN character_not_in_repertoire OR invalid_parameter_value THEN
    RETURN NULL;
END $$;

-- An end user that was only heard of gets a row when it is first booked, so that a rebuild
-- finds what it used.
CREATE FUNCTION kt_customer_seen() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    id text := kt_decode(substr(NEW.ent, 10));
BEGIN
    IF id IS NULL OR NOT kt_id_ok(id) OR kt_ent('customer', id) <> NEW.ent THEN
        RETURN NULL;
    END IF;
    WITH n AS (INSERT INTO customers (user_id) VALUES (id) ON CONFLICT DO NOTHING RETURNING ent)
    INSERT INTO outbox (ent, op, version) SELECT ent, 'set', 0 FROM n;
    RETURN NULL;
END $$;
CREATE TRIGGER meters_customer AFTER INSERT ON meters FOR EACH ROW
    WHEN (NEW.ent LIKE 'customer:%' AND strpos(NEW.ent, '~') = 0)
    EXECUTE FUNCTION kt_customer_seen();

ALTER TABLE tags ADD COLUMN metadata jsonb NOT NULL DEFAULT '{}';
COMMENT ON COLUMN tags.metadata IS 'LiteLLM fields without a column';
ALTER TABLE customers ADD COLUMN extra jsonb NOT NULL DEFAULT '{}';
COMMENT ON COLUMN customers.extra IS 'LiteLLM fields without a column';
ALTER TABLE organization_memberships ADD COLUMN metadata jsonb NOT NULL DEFAULT '{}';
COMMENT ON COLUMN organization_memberships.metadata IS 'LiteLLM fields without a column';


-- ------------------------------------------------------------- model access

-- Groups that deployments name in model_info.access_groups.
CREATE TABLE model_groups (
    group_name  text NOT NULL,
    model_name  text NOT NULL,
    source      text NOT NULL CHECK (source IN ('api', 'config')),
    PRIMARY KEY (group_name, model_name, source)
);
COMMENT ON TABLE model_groups IS 'Which models belong to a group by their own model_info.access_groups';

CREATE FUNCTION kt_groups_in(list jsonb) RETURNS TABLE (g text, m text)
    LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT DISTINCT e, l->>'model_name'
      FROM jsonb_array_elements(list) l,
           jsonb_array_elements_text(CASE WHEN jsonb_typeof(l->'model_info'->'access_groups') = 'array'
                                          THEN l->'model_info'->'access_groups' ELSE '[]' END) e
     WHERE kt_id_ok(e) $$;

CREATE FUNCTION kt_model_groups_sync(origin text, list jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM model_groups x WHERE x.source = origin
       AND (x.group_name, x.model_name) NOT IN (SELECT n.g, n.m FROM kt_groups_in(list) n);
    INSERT INTO model_groups SELECT n.g, n.m, origin FROM kt_groups_in(list) n ON CONFLICT DO NOTHING;
END $$;

CREATE FUNCTION kt_models_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM kt_model_groups_sync('api', coalesce(
        (SELECT jsonb_agg(jsonb_build_object('model_name', model_name, 'model_info', model_info))
           FROM models WHERE source = 'api' AND model_info ? 'access_groups'), '[]'));
    RETURN NULL;
END $$;
CREATE TRIGGER models_groups AFTER INSERT OR UPDATE OR DELETE ON models
    FOR EACH STATEMENT EXECUTE FUNCTION kt_models_changed();

CREATE FUNCTION kt_model_groups_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM kt_group_changed(NULL, CASE WHEN TG_OP = 'DELETE' THEN OLD.group_name ELSE NEW.group_name END);
    RETURN NULL;
END $$;
CREATE TRIGGER model_groups_refs AFTER INSERT OR DELETE ON model_groups
    FOR EACH ROW EXECUTE FUNCTION kt_model_groups_changed();
UPDATE models SET model_id = model_id WHERE false;

-- Allow-list with group names resolved; null means all.  `every` are the names that stand for
-- every model on this kind of object.
CREATE FUNCTION kt_allowed(m text[], groups text[], every text[]) RETURNS json
    LANGUAGE plpgsql STABLE AS $$
BEGIN RETURN (
    SELECT CASE
        WHEN cardinality(m) = 0 AND cardinality(groups) = 0 THEN NULL
        WHEN m && every THEN NULL
        ELSE coalesce((SELECT to_json(array_agg(DISTINCT n)) FROM (
                SELECT unnest(m) AS n
                UNION
                SELECT gm.model_name FROM access_groups a
                  JOIN access_group_models gm USING (access_group_id)
                 WHERE a.status = 'active'
                   AND (a.access_group_name = ANY (m) OR a.access_group_id = ANY (groups))
                UNION
                SELECT g.model_name FROM model_groups g WHERE g.group_name = ANY (m)) AS x),
             '["no-default-models"]'::json) END);
END $$;

-- A key: all-team-models leaves it to the team.
CREATE OR REPLACE FUNCTION kt_models(m text[], groups text[]) RETURNS json LANGUAGE sql STABLE AS $$
    SELECT kt_allowed(m, groups, ARRAY['*', 'all-proxy-models', 'all-team-models']) $$;

-- A user: no-default-models wins over everything else in the list.
CREATE FUNCTION kt_user_models(m text[]) RETURNS json LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN 'no-default-models' = ANY (m) THEN '["no-default-models"]'::json
           ELSE kt_allowed(m, '{}', ARRAY['*', 'all-proxy-models']) END $$;

-- model_aliases and router_settings.model_group_alias of one object, from name to name.
CREATE FUNCTION kt_alias_map(aliases jsonb, router jsonb) RETURNS jsonb
    LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT coalesce(jsonb_object_agg(k, to_jsonb(v)), '{}') FROM (
        SELECT DISTINCT ON (k) k, CASE jsonb_typeof(v) WHEN 'string' THEN v #>> '{}'
                                       WHEN 'object' THEN v->>'model' END AS v
          FROM (SELECT 0 AS n, * FROM jsonb_each(CASE WHEN jsonb_typeof(aliases) = 'object'
                                                      THEN aliases ELSE '{}' END) AS a(k, v)
                UNION ALL
                SELECT 1, * FROM jsonb_each(CASE WHEN jsonb_typeof(router->'model_group_alias') = 'object'
                                                 THEN router->'model_group_alias' ELSE '{}' END) AS r(k, v)) x
         ORDER BY k, n) y
     WHERE v IS NOT NULL AND v <> k AND octet_length(v) BETWEEN 1 AND 255 AND v !~ '[[:cntrl:]]' $$;

-- What a key's caller may say and what it means: the key's own names first, then the team's.
CREATE FUNCTION kt_aliases(k jsonb, kr jsonb, t jsonb, tr jsonb) RETURNS jsonb
    LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT nullif(tm || coalesce((SELECT jsonb_object_agg(e.key, coalesce(tm->>e.value, e.value))
                                    FROM jsonb_each_text(km) e), '{}'), '{}')
      FROM (SELECT kt_alias_map(k, kr) AS km, kt_alias_map(t, tr) AS tm) m $$;

-- Who gives a model a second name lets it be used by that name.
CREATE FUNCTION kt_and_targets(models json, aliases jsonb) RETURNS json
    LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN models IS NULL OR aliases IS NULL OR aliases = '{}' THEN models ELSE
        (SELECT json_agg(n ORDER BY n) FROM (SELECT json_array_elements_text(models) AS n
                                 UNION SELECT e.value FROM jsonb_each_text(aliases) e) x) END $$;

-- A policy with what kt_policy_json() does not know.
CREATE FUNCTION kt_policy_more(policy text, aliases jsonb) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN aliases IS NULL THEN policy
           ELSE (policy::jsonb || jsonb_build_object('aliases', aliases))::text END $$;

-- Keys name the organization of their team and its aliases; members have its default
-- budget and rule.
CREATE OR REPLACE FUNCTION kt_teams_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' OR (OLD.organization_id, OLD.model_aliases, OLD.router_settings)
       IS DISTINCT FROM (NEW.organization_id, NEW.model_aliases, NEW.router_settings) THEN
        PERFORM kt_bump_keys(ARRAY(SELECT token FROM keys WHERE team_id = NEW.team_id));
    END IF;
    IF TG_OP = 'INSERT' OR (OLD.member_budget_id, OLD.budget_enforcement)
       IS DISTINCT FROM (NEW.member_budget_id, NEW.budget_enforcement) THEN
        PERFORM kt_bump_members(NEW.team_id, NULL);
    END IF;
    RETURN NULL;
END $$;
DROP TRIGGER teams_refs ON teams;
CREATE TRIGGER teams_refs AFTER UPDATE ON teams FOR EACH ROW
    WHEN ((OLD.organization_id, OLD.member_budget_id, OLD.budget_enforcement, OLD.model_aliases,
           OLD.router_settings)
          IS DISTINCT FROM (NEW.organization_id, NEW.member_budget_id, NEW.budget_enforcement,
           NEW.model_aliases, NEW.router_settings))
    EXECUTE FUNCTION kt_teams_changed();
DROP TRIGGER teams_made ON teams;
CREATE TRIGGER teams_made AFTER INSERT ON teams FOR EACH ROW
    WHEN (NEW.organization_id IS NOT NULL OR NEW.member_budget_id IS NOT NULL
          OR NEW.budget_enforcement IS NOT NULL OR NEW.model_aliases IS NOT NULL
          OR NEW.router_settings IS NOT NULL)
    EXECUTE FUNCTION kt_teams_changed();

-- The keys of a team name its user only when the user has rates.
DROP TRIGGER users_rates ON users;
CREATE TRIGGER users_rates AFTER UPDATE ON users FOR EACH ROW
    WHEN ((OLD.rpm_limit IS NULL AND OLD.tpm_limit IS NULL AND OLD.max_parallel_requests IS NULL)
          <> (NEW.rpm_limit IS NULL AND NEW.tpm_limit IS NULL AND NEW.max_parallel_requests IS NULL))
    EXECUTE FUNCTION kt_users_changed();
DROP TRIGGER users_made ON users;
CREATE TRIGGER users_made AFTER INSERT ON users FOR EACH ROW
    WHEN (NEW.rpm_limit IS NOT NULL OR NEW.tpm_limit IS NOT NULL OR NEW.max_parallel_requests IS NOT NULL)
    EXECUTE FUNCTION kt_users_changed();


-- ------------------------------------------------------------------- policy

CREATE OR REPLACE VIEW kt_policy AS
SELECT k.ent AS name, k.version AS v, p.id AS period_id, p.used,
       kt_policy_more(kt_policy_json(k.version, 'key', k.key_alias, k.blocked, k.status, k.expires,
           coalesce(k.budget_enforcement, b.budget_enforcement), false,
           coalesce(k.max_budget_nusd, b.max_budget_nusd),
           coalesce(k.soft_budget_nusd, b.soft_budget_nusd), coalesce(k.rpm_limit, b.rpm_limit),
           coalesce(k.tpm_limit, b.tpm_limit),
           coalesce(k.max_parallel_requests, b.max_parallel_requests),
           kt_and_targets(kt_models(k.models, k.access_group_ids), a.own),
           k.period_kind, k.period_len_s, k.period_id,
           k.period_end_s, p.used,
           CASE WHEN k.team_id IS NULL THEN to_jsonb(array_remove(ARRAY[
                    kt_ent('org', k.organization_id), kt_ent('user', k.user_id), 'global'], NULL))
                ELSE to_jsonb(array_remove(ARRAY[
                    kt_ent('team', k.team_id),
                    kt_ent('org', coalesce(k.organization_id, t.organization_id)),
                    'member:' || kt_encode(k.team_id) || '/' || kt_encode(k.user_id)], NULL))
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
  CROSS JOIN LATERAL (SELECT kt_aliases(k.aliases, k.router_settings, t.model_aliases,
                                        t.router_settings) AS every,
                             kt_aliases(k.aliases, k.router_settings, NULL, NULL) AS own) a
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
           NULL, m.period_kind, m.period_len_s, m.period_id, m.period_end_s, p.used, NULL, NULL,
           NULL, '{}', false)
  FROM memberships m
  LEFT JOIN teams t ON t.team_id = m.team_id
  LEFT JOIN budgets b ON b.budget_id = m.budget_id
  LEFT JOIN budgets d ON d.budget_id = t.member_budget_id
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


-- ------------------------------------------------------------- soft budgets

CREATE TABLE alerts (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    ent         text NOT NULL,
    period_id   bigint NOT NULL,
    kind        text NOT NULL CHECK (kind IN ('soft_budget')),
    limit_nusd  bigint NOT NULL,
    used_nusd   bigint NOT NULL,
    raised_at   timestamptz NOT NULL DEFAULT now(),
    sent_at     timestamptz,
    UNIQUE (ent, period_id, kind)
);
CREATE INDEX alerts_unsent ON alerts (id) WHERE sent_at IS NULL;
COMMENT ON TABLE alerts IS 'What somebody must be told; one row per entity, period and kind';
COMMENT ON COLUMN alerts.sent_at IS 'Null until it was delivered';

CREATE INDEX keys_soft ON keys (ent) WHERE soft_budget_nusd IS NOT NULL;
CREATE INDEX budgets_soft ON budgets (budget_id) WHERE soft_budget_nusd IS NOT NULL;

CREATE VIEW kt_soft AS
SELECT ent, kt_period_id(period_kind, period_len_s, period_id, period_end_s, kt_now_s()) AS period_id, soft
  FROM (
    SELECT ent, period_kind, period_len_s, period_id, period_end_s, soft_budget_nusd AS soft
      FROM keys WHERE soft_budget_nusd IS NOT NULL
    UNION ALL
    SELECT k.ent, k.period_kind, k.period_len_s, k.period_id, k.period_end_s, b.soft_budget_nusd
      FROM keys k JOIN budgets b ON b.budget_id = k.budget_id
     WHERE k.soft_budget_nusd IS NULL AND b.soft_budget_nusd IS NOT NULL
    UNION ALL
    SELECT ent, period_kind, period_len_s, period_id, period_end_s, soft_budget_nusd
      FROM teams WHERE soft_budget_nusd IS NOT NULL
    UNION ALL
    SELECT ent, period_kind, period_len_s, period_id, period_end_s, soft_budget_nusd
      FROM users WHERE soft_budget_nusd IS NOT NULL
    UNION ALL
    SELECT o.ent, o.period_kind, o.period_len_s, o.period_id, o.period_end_s,
           coalesce(o.soft_budget_nusd, b.soft_budget_nusd)
      FROM organizations o LEFT JOIN budgets b ON b.budget_id = o.budget_id
     WHERE coalesce(o.soft_budget_nusd, b.soft_budget_nusd) IS NOT NULL
    UNION ALL
    SELECT m.ent, m.period_kind, m.period_len_s, m.period_id, m.period_end_s, b.soft_budget_nusd
      FROM memberships m JOIN teams t USING (team_id)
      JOIN budgets b ON b.budget_id = coalesce(m.budget_id, t.member_budget_id)
     WHERE b.soft_budget_nusd IS NOT NULL
    UNION ALL
    SELECT c.ent, c.period_kind, c.period_len_s, c.period_id, c.period_end_s, b.soft_budget_nusd
      FROM customers c LEFT JOIN customer_default d ON c.budget_id IS NULL
      JOIN budgets b ON b.budget_id = coalesce(c.budget_id, d.budget_id)
     WHERE b.soft_budget_nusd IS NOT NULL
    UNION ALL
    SELECT g.ent, g.period_kind, g.period_len_s, g.period_id, g.period_end_s, b.soft_budget_nusd
      FROM tags g JOIN budgets b ON b.budget_id = g.budget_id
     WHERE b.soft_budget_nusd IS NOT NULL) x;
COMMENT ON VIEW kt_soft IS 'Soft budgets by entity and running period';

-- Raises what was crossed since the last look; how many.
CREATE FUNCTION kt_soft_alerts() RETURNS bigint LANGUAGE sql AS $$
    WITH n AS (INSERT INTO alerts (ent, period_id, kind, limit_nusd, used_nusd)
               SELECT s.ent, s.period_id, 'soft_budget', s.soft, m.used_nusd
                 FROM kt_soft s JOIN meters m ON m.ent = s.ent AND m.period_id = s.period_id
                WHERE m.used_nusd >= s.soft
               ON CONFLICT DO NOTHING RETURNING 1)
    SELECT count(*) FROM n $$;
