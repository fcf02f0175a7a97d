-- Usage by day, from the ledger: sums that reports are made of.  A dimension is one
-- combination of who and what; its id is a hash of it, so that nobody has to look it up.

LOCK TABLE ledger IN SHARE MODE;
DROP TABLE daily_usage;

CREATE TABLE usage_dims (
    dim              uuid PRIMARY KEY,
    kind             "char" NOT NULL CHECK (kind IN ('k', 'g', 't', 'o', 'c', 'l', 'n')),
    name             text NOT NULL,
    token            text NOT NULL,
    user_id          text NOT NULL,
    team_id          text NOT NULL,
    organization_id  text NOT NULL,
    model            text NOT NULL,
    upstream_model   text NOT NULL,
    provider         text NOT NULL,
    route            text NOT NULL
);
CREATE INDEX usage_dims_name ON usage_dims (kind, name) WHERE name <> '';
CREATE INDEX usage_dims_token ON usage_dims (token) WHERE kind = 'k';
CREATE INDEX usage_dims_user ON usage_dims (user_id) WHERE kind = 'k' AND user_id <> '';
CREATE INDEX usage_dims_team ON usage_dims (team_id) WHERE kind = 'k' AND team_id <> '';
CREATE INDEX usage_dims_organization ON usage_dims (organization_id) WHERE kind = 'k' AND organization_id <> '';
COMMENT ON TABLE usage_dims IS 'Who and what a sum is of';
COMMENT ON COLUMN usage_dims.kind IS
    'k: key; c: end user, l: tag, both by key; g: everything, t: team, o: organization, n: tag, these without the key';
COMMENT ON COLUMN usage_dims.name IS 'The team, organization, end user or tag';

CREATE TABLE usage_sums (
    dim                uuid NOT NULL,
    kind               "char" NOT NULL,
    day                date NOT NULL,
    requests           bigint NOT NULL,
    failed             bigint NOT NULL,
    prompt_tokens      bigint NOT NULL,
    completion_tokens  bigint NOT NULL,
    cache_read_tokens  bigint NOT NULL,
    cache_write_tokens bigint NOT NULL,
    cost_nusd          bigint NOT NULL,
    cost_ucr           bigint NOT NULL,
    parts              bigint NOT NULL,
    PRIMARY KEY (dim, kind, day)
) WITH (fillfactor = 80);
CREATE INDEX usage_sums_day ON usage_sums (kind, day, dim);
COMMENT ON TABLE usage_sums IS 'Requests, tokens and money of a dimension on one UTC day; written by the ledger consumer only';
COMMENT ON COLUMN usage_sums.kind IS 'As the dimension''s; m: a month of a key, by its first day';
COMMENT ON COLUMN usage_sums.parts IS 'Without the key: how many rows by key it is the sum of';

-- The twin of usage_dim() in controld/ledger_usage.c.
CREATE FUNCTION kt_usage_dim(kind "char", name text, token text, user_id text, team_id text,
    organization_id text, model text, upstream_model text, provider text, route text) RETURNS uuid
    LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT left(encode(sha256(convert_to(concat_ws(E'\x1f', kind::text, name, token, user_id, team_id,
        organization_id, model, upstream_model, provider, route), 'UTF8')), 'hex'), 32)::uuid $$;

-- What the sums must be.
CREATE VIEW kt_usage_truth AS
WITH r AS (
    SELECT (started_at AT TIME ZONE 'UTC')::date AS day, coalesce(token, '') AS token,
           coalesce(user_id, '') AS user_id, coalesce(team_id, '') AS team_id,
           coalesce(organization_id, '') AS organization_id, coalesce(customer_id, '') AS customer_id,
           tags, model, upstream_model, provider, route, (http_status >= 400)::int AS failed,
           prompt_tokens, completion_tokens, cache_read_tokens, cache_write_tokens, cost_nusd, cost_ucr
      FROM ledger WHERE kind = 'request'
), d AS (
    SELECT x.kind, x.name, CASE WHEN x.fine THEN token ELSE '' END AS token,
           CASE WHEN x.fine THEN user_id ELSE '' END AS user_id,
           CASE WHEN x.fine THEN team_id ELSE '' END AS team_id,
           CASE WHEN x.fine THEN organization_id ELSE '' END AS organization_id,
           model, upstream_model, provider, route, x.day, 1 AS requests, failed, prompt_tokens,
           completion_tokens, cache_read_tokens, cache_write_tokens, cost_nusd, cost_ucr,
           CASE WHEN NOT x.fine THEN concat_ws(E'\x1f', r.token, r.user_id, r.team_id, r.organization_id) END
               AS part
      FROM r CROSS JOIN LATERAL (
        SELECT 'k' AS kind, '' AS name, true AS fine, r.day AS day
        UNION ALL SELECT 'm', '', true, date_trunc('month', r.day::timestamp)::date
        UNION ALL SELECT 'g', '', false, r.day
        UNION ALL SELECT 't', r.team_id, false, r.day WHERE r.team_id <> ''
        UNION ALL SELECT 'o', r.organization_id, false, r.day WHERE r.organization_id <> ''
        UNION ALL SELECT 'c', r.customer_id, true, r.day WHERE r.customer_id <> ''
        UNION ALL SELECT 'l', t, true, r.day FROM (SELECT DISTINCT unnest(r.tags) AS t) y WHERE t <> ''
        UNION ALL SELECT 'n', t, false, r.day FROM (SELECT DISTINCT unnest(r.tags) AS t) z WHERE t <> '') x
)
SELECT kind::"char" AS kind, name, token, user_id, team_id, organization_id, model, upstream_model,
       provider, route, day, sum(requests)::bigint AS requests, sum(failed)::bigint AS failed,
       sum(prompt_tokens)::bigint AS prompt_tokens, sum(completion_tokens)::bigint AS completion_tokens,
       sum(cache_read_tokens)::bigint AS cache_read_tokens,
       sum(cache_write_tokens)::bigint AS cache_write_tokens, sum(cost_nusd)::bigint AS cost_nusd,
       sum(cost_ucr)::bigint AS cost_ucr, count(DISTINCT part) AS parts
  FROM d GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11;
COMMENT ON VIEW kt_usage_truth IS 'The sums computed from the ledger itself, for checks';

INSERT INTO usage_dims
SELECT DISTINCT kt_usage_dim(kind, name, token, user_id, team_id, organization_id, model, upstream_model,
           provider, route), kind, name, token, user_id, team_id, organization_id, model, upstream_model,
           provider, route
  FROM kt_usage_truth WHERE kind <> 'm';
INSERT INTO usage_sums
SELECT kt_usage_dim(CASE kind WHEN 'm' THEN 'k' ELSE kind END, name, token, user_id, team_id,
           organization_id, model, upstream_model, provider, route), kind, day, requests, failed,
           prompt_tokens, completion_tokens, cache_read_tokens, cache_write_tokens, cost_nusd, cost_ucr,
           parts
  FROM kt_usage_truth;

-- The sums with what they are of.
CREATE VIEW kt_usage AS
SELECT s.kind, x.name, x.token, x.user_id, x.team_id, x.organization_id, x.model, x.upstream_model,
       x.provider, x.route, s.day, s.requests, s.failed, s.prompt_tokens, s.completion_tokens,
       s.cache_read_tokens, s.cache_write_tokens, s.cost_nusd, s.cost_ucr, s.parts
  FROM usage_sums s JOIN usage_dims x USING (dim);
COMMENT ON VIEW kt_usage IS 'usage_sums with their dimensions; equal to kt_usage_truth whenever nothing is under way';
