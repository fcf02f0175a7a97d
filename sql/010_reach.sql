-- What follows a budget is found by index, however many rows there are.

CREATE INDEX teams_soft ON teams (ent) WHERE soft_budget_nusd IS NOT NULL;
CREATE INDEX users_soft ON users (ent) WHERE soft_budget_nusd IS NOT NULL;

CREATE OR REPLACE FUNCTION kt_bump_members(team text, budget text) RETURNS void LANGUAGE sql AS $$
    WITH l AS (SELECT m.ent FROM memberships m WHERE m.ent IN (
                   SELECT x.ent FROM memberships x WHERE x.team_id = team
                   UNION ALL
                   SELECT x.ent FROM memberships x WHERE x.budget_id = budget
                   UNION ALL
                   SELECT x.ent FROM teams t JOIN memberships x USING (team_id)
                    WHERE t.member_budget_id = budget AND x.budget_id IS NULL)
                ORDER BY m.ent FOR NO KEY UPDATE OF m),
         u AS (UPDATE memberships SET budget_id = budget_id FROM l WHERE memberships.ent = l.ent
               RETURNING memberships.ent)
    INSERT INTO outbox (ent, op, version) SELECT ent, 'set', 0 FROM u $$;

-- A budget that was just made has no followers but the end users who waited for it.
CREATE FUNCTION kt_budgets_made() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT 1 FROM customer_default WHERE budget_id = NEW.budget_id) THEN
        PERFORM kt_bump_customers(NEW.budget_id);
    END IF;
    RETURN NULL;
END $$;
DROP TRIGGER budgets_made ON budgets;
CREATE TRIGGER budgets_made AFTER INSERT ON budgets
    FOR EACH ROW EXECUTE FUNCTION kt_budgets_made();

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

-- Most keys have no other names for models: nothing is computed for them.
CREATE OR REPLACE FUNCTION kt_aliases(k jsonb, kr jsonb, t jsonb, tr jsonb) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    km jsonb;
    tm jsonb;
BEGIN
    IF (k IS NULL OR k = '{}') AND (t IS NULL OR t = '{}') AND kr IS NULL AND tr IS NULL THEN
        RETURN NULL;
    END IF;
    km := kt_alias_map(k, kr);
    tm := kt_alias_map(t, tr);
    RETURN nullif(tm || coalesce((SELECT jsonb_object_agg(e.key, coalesce(tm->>e.value, e.value))
                                    FROM jsonb_each_text(km) e), '{}'), '{}');
END $$;
