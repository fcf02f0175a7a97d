-- What a key is bound by follows its team and its list: a second name that the key itself
-- has for a model adds nothing to the list, a key of a team is of the organization of the
-- team, and every organization has a budget.

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

-- A user as somebody else may see him who is no proxy admin: all of it who runs his own
-- organization, without what he is elsewhere, and anybody else who he is.
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
     WHERE a.user_id = viewer AND a.user_role = 'org_admin' AND m.user_id = u.user_id;
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
