-- Model access groups that are made over the API, beside those that deployments name.

ALTER TABLE model_groups DROP CONSTRAINT model_groups_source_check;
ALTER TABLE model_groups ADD CONSTRAINT model_groups_source_check CHECK (source IN ('api', 'config', 'group'));
COMMENT ON COLUMN model_groups.source IS
    'Who says so: a deployment that the API made, the configuration file, or /access_group';

CREATE INDEX keys_groups ON keys USING gin (access_group_ids) WHERE access_group_ids <> '{}';
CREATE INDEX teams_groups ON teams USING gin (access_group_ids) WHERE access_group_ids <> '{}';

-- An access group on the wire.
CREATE FUNCTION kt_access_group_json(g access_groups) RETURNS json LANGUAGE plpgsql STABLE AS $$
BEGIN RETURN (
    SELECT to_json(r) FROM (SELECT g.access_group_id AS access_group_id,
        g.access_group_name AS access_group_name, g.description AS description,
        coalesce((SELECT json_agg(m.model_name ORDER BY m.model_name) FROM access_group_models m
                   WHERE m.access_group_id = g.access_group_id), '[]'::json) AS access_model_names,
        coalesce(g.extra->'access_mcp_server_ids', '[]') AS access_mcp_server_ids,
        coalesce(g.extra->'access_agent_ids', '[]') AS access_agent_ids,
        coalesce((SELECT json_agg(t.team_id ORDER BY t.team_id) FROM teams t WHERE t.access_group_ids <> '{}'
                     AND t.access_group_ids @> ARRAY[g.access_group_id]), '[]'::json) AS assigned_team_ids,
        coalesce((SELECT json_agg(k.token ORDER BY k.token) FROM keys k WHERE k.access_group_ids <> '{}'
                     AND k.access_group_ids @> ARRAY[g.access_group_id]), '[]'::json) AS assigned_key_ids,
        kt_ts(g.created_at) AS created_at, g.created_by AS created_by,
        kt_ts(g.updated_at) AS updated_at, g.updated_by AS updated_by) r);
END $$;
