-- Budgets, end users, tags and organizations on the wire.

CREATE OR REPLACE FUNCTION kt_budget_json(b budgets) RETURNS json LANGUAGE plpgsql STABLE AS $$
BEGIN RETURN (
    SELECT CASE WHEN b.budget_id IS NULL THEN NULL ELSE to_json(r) END FROM (SELECT
        b.budget_id AS budget_id, kt_usd(b.max_budget_nusd) AS max_budget,
        kt_usd(b.soft_budget_nusd) AS soft_budget, b.max_parallel_requests AS max_parallel_requests,
        b.tpm_limit AS tpm_limit, b.rpm_limit AS rpm_limit, b.model_max_budget AS model_max_budget,
        b.budget_duration AS budget_duration,
        kt_reset_at(b.period_kind, b.period_len_s, b.period_id, b.period_end_s) AS budget_reset_at,
        kt_ts(b.created_at) AS created_at, b.created_by AS created_by,
        kt_ts(b.updated_at) AS updated_at, b.updated_by AS updated_by,
        b.budget_enforcement AS budget_enforcement) r);
END $$;

-- Who follows a budget; `but` itself does not count.
CREATE FUNCTION kt_budget_shared(b text, but text) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT EXISTS (SELECT 1 FROM keys WHERE budget_id = b AND ent <> but)
        OR EXISTS (SELECT 1 FROM memberships WHERE budget_id = b AND ent <> but)
        OR EXISTS (SELECT 1 FROM teams WHERE member_budget_id = b)
        OR EXISTS (SELECT 1 FROM organizations WHERE budget_id = b AND ent <> but)
        OR EXISTS (SELECT 1 FROM customers WHERE budget_id = b AND ent <> but)
        OR EXISTS (SELECT 1 FROM tags WHERE budget_id = b AND ent <> but)
        OR EXISTS (SELECT 1 FROM customer_default WHERE budget_id = b) $$;

-- Unlinks a budget everywhere, so that it can go.
CREATE FUNCTION kt_budget_unlink(b text) RETURNS void LANGUAGE sql AS $$
    WITH k AS (UPDATE keys SET budget_id = NULL WHERE budget_id = b RETURNING ent),
         m AS (UPDATE memberships SET budget_id = NULL WHERE budget_id = b RETURNING ent),
         o AS (UPDATE organizations SET budget_id = NULL WHERE budget_id = b RETURNING ent),
         c AS (UPDATE customers SET budget_id = NULL WHERE budget_id = b RETURNING ent),
         g AS (UPDATE tags SET budget_id = NULL WHERE budget_id = b RETURNING ent)
    INSERT INTO outbox (ent, op, version)
    SELECT ent, 'set', 0 FROM (TABLE k UNION ALL TABLE m UNION ALL TABLE o UNION ALL TABLE c
                               UNION ALL TABLE g) x;
    UPDATE teams SET member_budget_id = NULL, metadata = metadata - 'team_member_budget_id'
     WHERE member_budget_id = b;
    UPDATE organization_memberships SET budget_id = NULL WHERE budget_id = b $$;

-- The default budget may go too: what followed it is then unlimited.
CREATE FUNCTION kt_budgets_gone() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM kt_bump_customers(OLD.budget_id);
    RETURN NULL;
END $$;
CREATE TRIGGER budgets_gone AFTER DELETE ON budgets
    FOR EACH ROW EXECUTE FUNCTION kt_budgets_gone();

CREATE FUNCTION kt_customer_json(c customers) RETURNS json LANGUAGE plpgsql STABLE AS $$
BEGIN RETURN (
    SELECT to_json(r) FROM (SELECT c.user_id AS user_id, c.alias AS alias, '0.0'::json AS spend,
        c.allowed_model_region AS allowed_model_region, c.default_model AS default_model,
        c.budget_id AS budget_id,
        (SELECT kt_budget_json(b) FROM budgets b WHERE b.budget_id = c.budget_id) AS litellm_budget_table,
        c.blocked AS blocked, c.extra->'object_permission' AS object_permission,
        CASE WHEN kt_strict(c.budget_enforcement) THEN 'strict' ELSE 'last_call' END
            AS budget_enforcement) r);
END $$;

CREATE FUNCTION kt_tag_json(g tags) RETURNS json LANGUAGE plpgsql STABLE AS $$
BEGIN RETURN (
    SELECT to_json(r) FROM (SELECT g.tag_name AS name, g.description AS description, g.models AS models,
        g.model_info AS model_info, '0.0'::json AS spend, g.budget_id AS budget_id,
        (SELECT kt_budget_json(b) FROM budgets b WHERE b.budget_id = g.budget_id) AS litellm_budget_table,
        kt_ts(g.created_at) AS created_at, kt_ts(g.updated_at) AS updated_at,
        g.created_by AS created_by) r);
END $$;

CREATE FUNCTION kt_org_member_json(m organization_memberships) RETURNS json LANGUAGE sql STABLE AS $$
    SELECT json_build_object('user_id', m.user_id, 'organization_id', m.organization_id,
        'user_role', m.user_role, 'spend', '0.0'::json, 'budget_id', m.budget_id,
        'user_email', (SELECT user_email FROM users u WHERE u.user_id = m.user_id),
        'created_at', kt_ts(m.created_at), 'updated_at', kt_ts(m.updated_at),
        'litellm_budget_table',
        (SELECT kt_budget_json(b) FROM budgets b WHERE b.budget_id = m.budget_id)) $$;

CREATE FUNCTION kt_org_json(o organizations) RETURNS json LANGUAGE plpgsql STABLE AS $$
BEGIN RETURN (
    SELECT to_json(r) FROM (SELECT o.organization_id AS organization_id,
        o.organization_alias AS organization_alias, o.budget_id AS budget_id, '0.0'::json AS spend,
        o.metadata AS metadata, o.models AS models, '{}'::json AS model_spend,
        kt_ts(o.created_at) AS created_at, o.created_by AS created_by,
        kt_ts(o.updated_at) AS updated_at, o.updated_by AS updated_by,
        (SELECT kt_budget_json(b) FROM budgets b WHERE b.budget_id = o.budget_id) AS litellm_budget_table,
        coalesce((SELECT json_agg(kt_org_member_json(m) ORDER BY m.created_at, m.user_id)
                    FROM organization_memberships m WHERE m.organization_id = o.organization_id),
                 '[]'::json) AS members,
        coalesce((SELECT json_agg(kt_team_json(t) ORDER BY t.created_at, t.team_id)
                    FROM teams t WHERE t.organization_id = o.organization_id AND NOT t.implicit),
                 '[]'::json) AS teams,
        NULL AS users, o.extra->>'object_permission_id' AS object_permission_id,
        o.extra->'object_permission' AS object_permission,
        CASE WHEN kt_strict(o.budget_enforcement) THEN 'strict' ELSE 'last_call' END
            AS budget_enforcement) r);
END $$;
