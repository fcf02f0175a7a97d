-- A policy is compiled from several rows.  Whoever changes one of them renews the version
-- of every entity that depends on it, in the same transaction, and leaves it to the
-- outbox: two compilations that differ never have the same version.

CREATE INDEX outbox_ent ON outbox (ent);
CREATE INDEX keys_budget ON keys (budget_id) WHERE budget_id IS NOT NULL;

CREATE FUNCTION kt_bump_keys(tokens text[]) RETURNS void LANGUAGE sql AS $$
    WITH l AS (SELECT token FROM keys WHERE token = ANY (tokens) ORDER BY token FOR NO KEY UPDATE),
         u AS (UPDATE keys SET version = version FROM l WHERE keys.token = l.token RETURNING ent)
    INSERT INTO outbox (ent, op, version) SELECT ent, 'set', 0 FROM u $$;

CREATE FUNCTION kt_bump_members(team text, budget text) RETURNS void LANGUAGE sql AS $$
    WITH l AS (SELECT m.ent FROM memberships m JOIN teams t USING (team_id)
                WHERE m.team_id = team OR m.budget_id = budget OR t.member_budget_id = budget
                ORDER BY m.ent FOR NO KEY UPDATE OF m),
         u AS (UPDATE memberships SET version = version FROM l WHERE memberships.ent = l.ent
               RETURNING memberships.ent)
    INSERT INTO outbox (ent, op, version) SELECT ent, 'set', 0 FROM u $$;

-- The keys of a team name its user only when the user has rates.
CREATE FUNCTION kt_users_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM kt_bump_keys(ARRAY(SELECT token FROM keys
                                WHERE user_id = NEW.user_id AND team_id IS NOT NULL));
    RETURN NULL;
END $$;
CREATE TRIGGER users_rates AFTER UPDATE ON users FOR EACH ROW
    WHEN ((OLD.rpm_limit IS NULL AND OLD.tpm_limit IS NULL)
          <> (NEW.rpm_limit IS NULL AND NEW.tpm_limit IS NULL))
    EXECUTE FUNCTION kt_users_changed();
CREATE TRIGGER users_made AFTER INSERT ON users FOR EACH ROW
    WHEN (NEW.rpm_limit IS NOT NULL OR NEW.tpm_limit IS NOT NULL)
    EXECUTE FUNCTION kt_users_changed();

-- Keys name the organization of their team; members have its default budget and rule.
CREATE FUNCTION kt_teams_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' OR OLD.organization_id IS DISTINCT FROM NEW.organization_id THEN
        PERFORM kt_bump_keys(ARRAY(SELECT token FROM keys WHERE team_id = NEW.team_id));
    END IF;
    IF TG_OP = 'INSERT' OR (OLD.member_budget_id, OLD.budget_enforcement)
       IS DISTINCT FROM (NEW.member_budget_id, NEW.budget_enforcement) THEN
        PERFORM kt_bump_members(NEW.team_id, NULL);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER teams_refs AFTER UPDATE ON teams FOR EACH ROW
    WHEN ((OLD.organization_id, OLD.member_budget_id, OLD.budget_enforcement)
          IS DISTINCT FROM (NEW.organization_id, NEW.member_budget_id, NEW.budget_enforcement))
    EXECUTE FUNCTION kt_teams_changed();
CREATE TRIGGER teams_made AFTER INSERT ON teams FOR EACH ROW
    WHEN (NEW.organization_id IS NOT NULL OR NEW.member_budget_id IS NOT NULL
          OR NEW.budget_enforcement IS NOT NULL)
    EXECUTE FUNCTION kt_teams_changed();

CREATE FUNCTION kt_budgets_changed() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    b text := NEW.budget_id;
BEGIN
    PERFORM kt_bump_keys(ARRAY(SELECT token FROM keys WHERE budget_id = b));
    PERFORM kt_bump_members(NULL, b);
    WITH o AS (UPDATE organizations SET version = version WHERE budget_id = b RETURNING ent),
         c AS (UPDATE customers SET version = version WHERE budget_id = b RETURNING ent),
         g AS (UPDATE tags SET version = version WHERE budget_id = b RETURNING ent)
    INSERT INTO outbox (ent, op, version)
    SELECT ent, 'set', 0 FROM (TABLE o UNION ALL TABLE c UNION ALL TABLE g) x;
    RETURN NULL;
END $$;
CREATE TRIGGER budgets_refs AFTER UPDATE ON budgets FOR EACH ROW
    WHEN (OLD IS DISTINCT FROM NEW) EXECUTE FUNCTION kt_budgets_changed();

CREATE FUNCTION kt_group_changed(id text, name text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM kt_bump_keys(ARRAY(SELECT token FROM keys
                                WHERE models @> ARRAY[name] OR access_group_ids @> ARRAY[id]));
    WITH t AS (UPDATE teams SET version = version
                WHERE models @> ARRAY[name] OR access_group_ids @> ARRAY[id] RETURNING ent),
         u AS (UPDATE users SET version = version WHERE models @> ARRAY[name] RETURNING ent),
         o AS (UPDATE organizations SET version = version WHERE models @> ARRAY[name] RETURNING ent)
    INSERT INTO outbox (ent, op, version)
    SELECT ent, 'set', 0 FROM (TABLE t UNION ALL TABLE u UNION ALL TABLE o) x;
END $$;
CREATE FUNCTION kt_groups_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        PERFORM kt_group_changed(OLD.access_group_id, OLD.access_group_name);
    END IF;
    IF TG_OP = 'INSERT' OR (TG_OP = 'UPDATE' AND OLD.access_group_name <> NEW.access_group_name) THEN
        PERFORM kt_group_changed(NEW.access_group_id, NEW.access_group_name);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER access_groups_refs AFTER INSERT OR DELETE OR UPDATE OF access_group_name, status
    ON access_groups FOR EACH ROW EXECUTE FUNCTION kt_groups_changed();
CREATE FUNCTION kt_group_models_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM kt_group_changed(access_group_id, access_group_name) FROM access_groups
      WHERE access_group_id IN (CASE WHEN TG_OP <> 'INSERT' THEN OLD.access_group_id END,
                                CASE WHEN TG_OP <> 'DELETE' THEN NEW.access_group_id END);
    RETURN NULL;
END $$;
CREATE TRIGGER access_group_models_refs AFTER INSERT OR UPDATE OR DELETE ON access_group_models
    FOR EACH ROW EXECUTE FUNCTION kt_group_models_changed();

-- A row that is being made is not seen by those above: it waits for them, and they for it.
CREATE FUNCTION kt_keys_refs() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.team_id IS NOT NULL THEN
        PERFORM 1 FROM users WHERE user_id = NEW.user_id FOR SHARE;
        PERFORM 1 FROM teams WHERE team_id = NEW.team_id FOR SHARE;
    END IF;
    PERFORM 1 FROM budgets WHERE budget_id = NEW.budget_id FOR SHARE;
    RETURN NEW;
END $$;
CREATE TRIGGER keys_refs BEFORE INSERT OR UPDATE OF user_id, team_id, budget_id ON keys
    FOR EACH ROW EXECUTE FUNCTION kt_keys_refs();
CREATE FUNCTION kt_memberships_refs() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM teams WHERE team_id = NEW.team_id FOR SHARE;
    PERFORM 1 FROM budgets WHERE budget_id = NEW.budget_id FOR SHARE;
    RETURN NEW;
END $$;
CREATE TRIGGER memberships_refs BEFORE INSERT ON memberships
    FOR EACH ROW EXECUTE FUNCTION kt_memberships_refs();
