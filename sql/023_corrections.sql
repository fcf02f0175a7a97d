-- A correction may take tokens off a meter.  PostgreSQL checks the row that INSERT
-- proposes before it finds the conflict, so a difference below zero has to pass.

ALTER TABLE meters DROP CONSTRAINT meters_tokens_check;

-- More than nine billion dollars for a while is nine billion.
CREATE OR REPLACE FUNCTION kt_temp_nusd(metadata jsonb) RETURNS numeric LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN jsonb_typeof(metadata->'temp_budget_increase') = 'number' AND kt_temp_expiry(metadata) > now()
           THEN round(least(9000000000, greatest(0, (metadata->>'temp_budget_increase')::numeric)) * 1000000000)
           ELSE 0 END $$;
