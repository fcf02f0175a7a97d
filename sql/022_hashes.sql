-- The ledger has the hash that was presented, also after that hash has ceased to work.

CREATE TABLE key_hashes (
    hash   text PRIMARY KEY CHECK (hash ~ '^[0-9a-f]{64}$'),
    token  text NOT NULL
);
CREATE INDEX key_hashes_token ON key_hashes (token);
COMMENT ON TABLE key_hashes IS 'Every hash that a regenerated key has had besides its token, for reports';

INSERT INTO key_hashes SELECT hash, token FROM key_tokens;

CREATE FUNCTION kt_key_hashed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO key_hashes VALUES (NEW.hash, NEW.token) ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$;
CREATE TRIGGER key_tokens_hashed AFTER INSERT ON key_tokens
    FOR EACH ROW EXECUTE FUNCTION kt_key_hashed();

-- All hashes of the key that one of them belongs to, the key's token first.
CREATE FUNCTION kt_key_hashes(h text) RETURNS text[] LANGUAGE plpgsql STABLE AS $$
DECLARE t text := coalesce((SELECT token FROM key_hashes WHERE hash = h), h);
BEGIN
    RETURN t || ARRAY(SELECT hash FROM key_hashes WHERE token = t ORDER BY hash);
END $$;
