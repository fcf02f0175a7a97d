-- How many keys there are, without counting them: the whole list is asked for by page,
-- and each page says how many there are.  Sixteen counters, so that writers do not meet.

CREATE TABLE key_counts (
    shard  integer PRIMARY KEY CHECK (shard BETWEEN 0 AND 15),
    n      bigint NOT NULL
);
COMMENT ON TABLE key_counts IS 'The sum of n is the number of rows of keys';
INSERT INTO key_counts SELECT i, CASE WHEN i = 0 THEN (SELECT count(*) FROM keys) ELSE 0 END FROM generate_series(0, 15) i;

CREATE FUNCTION kt_keys_counted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        UPDATE key_counts SET n = n + (SELECT count(*) FROM fresh) WHERE shard = pg_backend_pid() % 16;
    ELSE
        UPDATE key_counts SET n = n - (SELECT count(*) FROM gone) WHERE shard = pg_backend_pid() % 16;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER keys_more AFTER INSERT ON keys REFERENCING NEW TABLE AS fresh
    FOR EACH STATEMENT EXECUTE FUNCTION kt_keys_counted();
CREATE TRIGGER keys_less AFTER DELETE ON keys REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION kt_keys_counted();

-- The log of one object, or of one person, whatever kind of object it is.
CREATE INDEX audit_object_id ON audit (object_id, id);
CREATE INDEX audit_actor ON audit (actor, id);
