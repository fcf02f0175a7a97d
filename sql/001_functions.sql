-- Small functions that the tables and views below are written with.

CREATE SEQUENCE policy_version_seq;
COMMENT ON SEQUENCE policy_version_seq IS
    'Versions of everything that is pushed to Redis; an older version never replaces a newer one';

CREATE SEQUENCE registry_gen_seq;
COMMENT ON SEQUENCE registry_gen_seq IS 'Generations of the model registry; only ever grows';


-- An id as it stands in an entity name: every byte outside [A-Za-z0-9._@+-] as
-- %XX.  The twin of kt_id_encode() in shared/kt_schema.c.
CREATE FUNCTION kt_encode(id text) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT CASE WHEN id ~ '^[A-Za-z0-9._@+-]*$' THEN id ELSE (
        SELECT string_agg(CASE WHEN b BETWEEN 48 AND 57 OR b BETWEEN 64 AND 90
                                 OR b BETWEEN 97 AND 122 OR b IN (43, 45, 46, 95)
                               THEN chr(b) ELSE '%' || upper(lpad(to_hex(b), 2, '0')) END,
                          '' ORDER BY i)
          FROM (SELECT i, get_byte(convert_to(id, 'UTF8'), i) AS b
                  FROM generate_series(0, octet_length(convert_to(id, 'UTF8')) - 1) AS i) AS bytes)
    END $$;

-- Entity name of one object: kt_ent('user', 'a b') = 'user:a%20b'.
CREATE FUNCTION kt_ent(kind text, id text) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT kind || ':' || kt_encode(id) $$;

-- Ids: not empty, at most 255 bytes, no control characters.
CREATE FUNCTION kt_id_ok(id text) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT id IS NULL OR (octet_length(id) BETWEEN 1 AND 255 AND id !~ '[[:cntrl:]]') $$;

-- Nano-USD as the JSON number LiteLLM clients expect: plain decimal, "0.0" for zero.
CREATE FUNCTION kt_usd(nusd bigint) RETURNS json
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT CASE WHEN nusd = 0 THEN '0.0'::json
           ELSE regexp_replace(((nusd::numeric) / 1000000000)::numeric(28, 9)::text,
                               '(\.[0-9]+?)0+$', '\1')::json END $$;

-- Pico-USD per token as a JSON number.
CREATE FUNCTION kt_pusd(pusd bigint) RETURNS json
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT CASE WHEN pusd = 0 THEN '0.0'::json
           ELSE regexp_replace(((pusd::numeric) / 1000000000000)::numeric(31, 12)::text,
                               '(\.[0-9]+?)0+$', '\1')::json END $$;

-- A time as LiteLLM renders it: 2024-06-13T00:02:16.454000Z
CREATE FUNCTION kt_ts(t timestamptz) RETURNS text
    LANGUAGE sql STABLE STRICT PARALLEL SAFE AS $$
    SELECT to_char(t AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"000Z"') $$;

-- Start of the period that contains `now`, given any period of the same rule.
-- The twin of kt_period_roll() in shared/kt_duration.c and roll() in keytoll.lua.
CREATE FUNCTION kt_period_id(kind text, len_s bigint, id bigint, end_s bigint, now_s bigint)
    RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE
        WHEN kind = 'none' OR end_s = 0 OR now_s < end_s THEN id
        WHEN kind = 'month' THEN extract(epoch FROM
             date_trunc('month', to_timestamp(now_s) AT TIME ZONE 'UTC'))::bigint
        ELSE end_s + (now_s - end_s) / len_s * len_s END $$;

CREATE FUNCTION kt_period_end(kind text, len_s bigint, id bigint, end_s bigint, now_s bigint)
    RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE
        WHEN kind = 'none' OR end_s = 0 THEN 0
        WHEN now_s < end_s THEN end_s
        WHEN kind = 'month' THEN extract(epoch FROM
             date_trunc('month', to_timestamp(now_s) AT TIME ZONE 'UTC') + interval '1 month')::bigint
        ELSE end_s + ((now_s - end_s) / len_s + 1) * len_s END $$;

CREATE FUNCTION kt_now_s() RETURNS bigint
    LANGUAGE sql STABLE PARALLEL SAFE AS $$ SELECT floor(extract(epoch FROM now()))::bigint $$;

-- Text of a status that blocks.
CREATE TYPE kt_status AS ENUM ('active', 'suspended', 'paused');

-- Every row that is pushed to Redis renews its version when it is written.
CREATE FUNCTION kt_renew_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.version := nextval('policy_version_seq');
    RETURN NEW;
END $$;

-- Tables that only grow.
CREATE FUNCTION kt_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;
