-- What ends by itself: grace periods of regenerated keys, temporary increases of a key's
-- budget, answers kept for an Idempotency-Key.

CREATE INDEX keys_original_until ON keys (original_until) WHERE original_until IS NOT NULL;
CREATE INDEX keys_temp_budget ON keys (token) WHERE metadata ? 'temp_budget_increase';

-- The end of a temporary increase; null for none, or for a text that is no time.
CREATE FUNCTION kt_temp_expiry(metadata jsonb) RETURNS timestamptz LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN ((metadata->>'temp_budget_expiry')::timestamp) AT TIME ZONE 'UTC';
EXCEPTION WHEN invalid_datetime_format OR datetime_field_overflow THEN
    RETURN NULL;
END $$;

CREATE FUNCTION kt_temp_nusd(metadata jsonb) RETURNS numeric LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN jsonb_typeof(metadata->'temp_budget_increase') = 'number' AND kt_temp_expiry(metadata) > now()
           THEN greatest(0, round((metadata->>'temp_budget_increase')::numeric * 1000000000)) ELSE 0 END $$;

CREATE OR REPLACE VIEW kt_policy AS
SELECT name, v, period_id, used,
       CASE WHEN name LIKE 'key:%' THEN coalesce((
           SELECT (r.policy::jsonb
                   || CASE WHEN k.current_hash IS NOT NULL THEN jsonb_build_object('meter', greatest(1, floor(extract(
                       epoch FROM coalesce(k.original_until, k.last_rotation_at, now())) * 1000)::bigint)) ELSE '{}' END
                   || CASE WHEN r.policy::jsonb ? 'limit' THEN jsonb_build_object('limit', least(9000000000000000000,
                       (r.policy::jsonb->>'limit')::numeric + kt_temp_nusd(k.metadata))::text) ELSE '{}' END)::text
             FROM keys k WHERE k.ent = r.name AND (k.current_hash IS NOT NULL OR k.metadata ? 'temp_budget_increase')),
           policy) ELSE policy END AS policy
  FROM kt_policy_rows r
UNION ALL
SELECT h.ent, b.v, 0, kt_used(h.ent, 0), kt_policy_thin(h, b.policy::jsonb)
  FROM key_tokens h CROSS JOIN LATERAL kt_policy_of('key:' || h.token) b;

-- Ends what is over; how much that was.  The outbox tells the gates.
CREATE FUNCTION kt_expire() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    n bigint;
    over text[];
BEGIN
    DELETE FROM key_tokens WHERE expires <= now();
    GET DIAGNOSTICS n = ROW_COUNT;
    over := ARRAY(SELECT token FROM keys WHERE original_until <= now() UNION
                  SELECT token FROM keys WHERE metadata ? 'temp_budget_increase' AND kt_temp_expiry(metadata) <= now());
    IF cardinality(over) > 0 THEN
        UPDATE keys SET original_until = CASE WHEN original_until > now() THEN original_until END,
               metadata = CASE WHEN kt_temp_expiry(metadata) <= now()
                          THEN metadata - '{temp_budget_increase,temp_budget_expiry}'::text[] ELSE metadata END
         WHERE token = ANY (over);
        INSERT INTO outbox (ent, op, version) SELECT 'key:' || t, 'set', 0 FROM unnest(over) t;
        n := n + cardinality(over);
    END IF;
    DELETE FROM idempotency WHERE created_at < now() - interval '25 hours';
    RETURN n;
END $$;
