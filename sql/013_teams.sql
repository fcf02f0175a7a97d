-- Teams that were deleted, and what PATCH does to an object.

CREATE TABLE deleted_teams (
    id                 bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    team_id            text NOT NULL,
    row                jsonb NOT NULL,
    deleted_at         timestamptz NOT NULL DEFAULT now(),
    deleted_by         text,
    deleted_by_api_key text,
    litellm_changed_by text
);
CREATE INDEX deleted_teams_team ON deleted_teams (team_id);
CREATE INDEX deleted_teams_at ON deleted_teams (deleted_at);
COMMENT ON TABLE deleted_teams IS 'The rows of teams that were deleted';

CREATE INDEX users_teams ON users USING gin (teams);
CREATE INDEX users_created ON users (created_at, user_id);
CREATE INDEX teams_created ON teams (created_at, team_id);

-- RFC 7396.
CREATE FUNCTION kt_merge_patch(target jsonb, patch jsonb) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    k text;
    v jsonb;
BEGIN
    IF jsonb_typeof(patch) <> 'object' THEN
        RETURN patch;
    END IF;
    IF target IS NULL OR jsonb_typeof(target) <> 'object' THEN
        target := '{}';
    END IF;
    FOR k, v IN SELECT * FROM jsonb_each(patch) LOOP
        IF v = 'null' THEN
            target := target - k;
        ELSE
            target := target || jsonb_build_object(k, kt_merge_patch(target->k, v));
        END IF;
    END LOOP;
    RETURN target;
END $$;
