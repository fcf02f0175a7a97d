-- A key that was regenerated stays the same entity: its meters, limits and name go on.
-- What clients present is another hash, a thin entity that stands before it and has no
-- limits of its own; during a grace period the hash before works as well.

ALTER TABLE keys ADD COLUMN current_hash text CHECK (current_hash ~ '^[0-9a-f]{64}$');
ALTER TABLE keys ADD COLUMN original_until timestamptz;
COMMENT ON COLUMN keys.current_hash IS 'SHA-256 of the key after it was regenerated; null: token is it';
COMMENT ON COLUMN keys.original_until IS 'End of the grace period of the key that token is the hash of';

CREATE TABLE key_tokens (
    hash        text PRIMARY KEY CHECK (hash ~ '^[0-9a-f]{64}$'),
    ent         text NOT NULL UNIQUE GENERATED ALWAYS AS ('key:' || hash) STORED,
    token       text NOT NULL REFERENCES keys ON DELETE CASCADE,
    expires     timestamptz,
    created_at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX key_tokens_token ON key_tokens (token);
CREATE INDEX key_tokens_expires ON key_tokens (expires) WHERE expires IS NOT NULL;
COMMENT ON TABLE key_tokens IS 'Hashes under which a regenerated key is presented';
COMMENT ON COLUMN key_tokens.expires IS 'End of the grace period; null for the current hash';

-- The key that a hash stands for, null for none.
CREATE FUNCTION kt_key_of(h text) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT coalesce((SELECT token FROM key_tokens WHERE hash = h AND (expires IS NULL OR expires > now())),
                    (SELECT token FROM keys WHERE token = h AND (current_hash IS NULL OR original_until > now()))) $$;

-- Whatever changes a key is pushed under all its hashes.
CREATE FUNCTION kt_keys_rotated() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO outbox (ent, op, version) SELECT ent, 'set', 0 FROM key_tokens WHERE token = NEW.token;
    RETURN NULL;
END $$;
CREATE TRIGGER keys_rotated AFTER UPDATE ON keys FOR EACH ROW
    WHEN (NEW.current_hash IS NOT NULL) EXECUTE FUNCTION kt_keys_rotated();

CREATE FUNCTION kt_key_tokens_gone() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO outbox (ent, op, version) VALUES (OLD.ent, 'del', nextval('policy_version_seq'));
    RETURN NULL;
END $$;
CREATE TRIGGER key_tokens_gone AFTER DELETE ON key_tokens
    FOR EACH ROW EXECUTE FUNCTION kt_key_tokens_gone();

ALTER VIEW kt_policy RENAME TO kt_policy_rows;

-- One entity by name: a function, since a join with the view would compute all of it.
CREATE FUNCTION kt_policy_of(n text) RETURNS TABLE (v bigint, policy text) LANGUAGE plpgsql STABLE ROWS 1 AS $$
BEGIN
    RETURN QUERY SELECT r.v, r.policy FROM kt_policy_rows r WHERE r.name = n;
END $$;

-- The key's policy under another hash: no limits, the key itself first among its refs.
CREATE FUNCTION kt_policy_thin(h key_tokens, policy jsonb) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT (policy - '{limit,soft,rpm,tpm,par,sub,win}'::text[] || jsonb_strip_nulls(jsonb_build_object(
           'thin', true,
           'refs', jsonb_build_array('key:' || h.token) || coalesce(policy->'refs', '[]'),
           'period', '{"kind": "none", "len_s": 0, "id": 0, "end_s": 0}'::jsonb,
           'used', kt_used(h.ent, 0)::text,
           'expires_ms', least((policy->>'expires_ms')::bigint,
                               floor(extract(epoch FROM h.expires) * 1000)::bigint))))::text $$;

CREATE VIEW kt_policy AS
SELECT name, v, period_id, used,
       CASE WHEN name LIKE 'key:%' THEN coalesce((
           SELECT (r.policy::jsonb || jsonb_build_object('meter', greatest(1, floor(extract(
                       epoch FROM coalesce(k.original_until, k.last_rotation_at, now())) * 1000)::bigint)))::text
             FROM keys k WHERE k.ent = r.name AND k.current_hash IS NOT NULL), policy) ELSE policy END AS policy
  FROM kt_policy_rows r
UNION ALL
SELECT h.ent, b.v, 0, kt_used(h.ent, 0), kt_policy_thin(h, b.policy::jsonb)
  FROM key_tokens h CROSS JOIN LATERAL kt_policy_of('key:' || h.token) b;
COMMENT ON VIEW kt_policy IS 'Every entity as it must stand in Redis';

CREATE OR REPLACE FUNCTION kt_key_json(k keys) RETURNS json LANGUAGE plpgsql STABLE AS $$
BEGIN RETURN (
    SELECT to_json(r) FROM (SELECT
        coalesce(k.current_hash, k.token) AS token, k.key_name AS key_name, k.key_alias AS key_alias,
        false AS soft_budget_cooldown, '0.0'::json AS spend, kt_ts(k.expires) AS expires,
        k.models AS models, k.aliases AS aliases, k.config AS config,
        k.router_settings AS router_settings, k.user_id AS user_id, k.team_id AS team_id,
        k.permissions AS permissions, k.max_parallel_requests AS max_parallel_requests,
        k.metadata AS metadata, k.blocked AS blocked, k.tpm_limit AS tpm_limit,
        k.rpm_limit AS rpm_limit, kt_usd(k.max_budget_nusd) AS max_budget,
        k.budget_duration AS budget_duration,
        kt_reset_at(k.period_kind, k.period_len_s, k.period_id, k.period_end_s) AS budget_reset_at,
        kt_limits_json(k.budget_limits, k.ent) AS budget_limits,
        k.extra->'budget_fallbacks' AS budget_fallbacks,
        k.allowed_cache_controls AS allowed_cache_controls, k.allowed_routes AS allowed_routes,
        k.policies AS policies, k.access_group_ids AS access_group_ids, '{}'::json AS model_spend,
        k.model_max_budget AS model_max_budget, k.budget_id AS budget_id,
        k.organization_id AS organization_id,
        k.extra->>'object_permission_id' AS object_permission_id,
        k.extra->'object_permission' AS object_permission,
        k.extra->'agent_id' AS agent_id, k.extra->'project_id' AS project_id,
        kt_ts(k.created_at) AS created_at, k.created_by AS created_by,
        kt_ts(k.updated_at) AS updated_at, k.updated_by AS updated_by,
        k.rotation_count AS rotation_count, k.auto_rotate AS auto_rotate,
        k.rotation_interval AS rotation_interval, kt_ts(k.last_rotation_at) AS last_rotation_at,
        kt_ts(k.key_rotation_at) AS key_rotation_at,
        (SELECT kt_budget_json(b) FROM budgets b WHERE b.budget_id = k.budget_id)
            AS litellm_budget_table,
        CASE WHEN kt_strict(k.budget_enforcement) THEN 'strict' ELSE 'last_call' END
            AS budget_enforcement) r);
END $$;
