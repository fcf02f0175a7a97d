-- What happened (meters, ledger, aggregates, audit), what is to be told to Redis
-- (outbox), and the objects of sign-in, models and access groups.

CREATE TABLE meters (
    ent          text NOT NULL,
    period_id    bigint NOT NULL CHECK (period_id >= 0),
    used_nusd    bigint NOT NULL DEFAULT 0,
    used_ucr     bigint NOT NULL DEFAULT 0,
    requests     bigint NOT NULL DEFAULT 0 CHECK (requests >= 0),
    tokens       bigint NOT NULL DEFAULT 0 CHECK (tokens >= 0),
    PRIMARY KEY (ent, period_id)
);
COMMENT ON TABLE meters IS 'What an entity used in one budget period; written by the ledger consumer only';
COMMENT ON COLUMN meters.ent IS 'Entity name, as in Redis';
COMMENT ON COLUMN meters.period_id IS 'Start of the period, epoch seconds; 0 for a budget that never renews';
COMMENT ON COLUMN meters.used_nusd IS 'Nano-USD';
COMMENT ON COLUMN meters.used_ucr IS 'Micro-credit';

CREATE TABLE ledger (
    rid                text NOT NULL CHECK (rid ~ '^[0-9a-f]{32}$'),
    started_at         timestamptz NOT NULL,
    kind               text NOT NULL DEFAULT 'request' CHECK (kind IN ('request', 'adjustment')),
    admitted_at        timestamptz NOT NULL,
    ended_at           timestamptz NOT NULL,
    first_token_at     timestamptz,
    recorded_at        timestamptz NOT NULL DEFAULT now(),
    token              text,
    user_id            text,
    team_id            text,
    organization_id    text,
    customer_id        text,
    tags               text[] NOT NULL DEFAULT '{}',
    model              text NOT NULL DEFAULT '',
    upstream_model     text NOT NULL DEFAULT '',
    provider           text NOT NULL DEFAULT '',
    route              text NOT NULL DEFAULT '',
    answer_id          text NOT NULL DEFAULT '',
    prompt_tokens      bigint NOT NULL DEFAULT 0 CHECK (prompt_tokens >= 0),
    completion_tokens  bigint NOT NULL DEFAULT 0 CHECK (completion_tokens >= 0),
    cache_read_tokens  bigint NOT NULL DEFAULT 0 CHECK (cache_read_tokens >= 0),
    cache_write_tokens bigint NOT NULL DEFAULT 0 CHECK (cache_write_tokens >= 0),
    reasoning_tokens   bigint NOT NULL DEFAULT 0 CHECK (reasoning_tokens >= 0),
    cost_nusd          bigint NOT NULL DEFAULT 0,
    cost_ucr           bigint NOT NULL DEFAULT 0,
    http_status        integer NOT NULL DEFAULT 0,
    ending             text NOT NULL DEFAULT '',
    estimated          boolean NOT NULL DEFAULT false,
    fixed              boolean NOT NULL DEFAULT false,
    late               boolean NOT NULL DEFAULT false,
    stream             boolean NOT NULL DEFAULT false,
    client_ip          text NOT NULL DEFAULT '',
    node               text NOT NULL DEFAULT '',
    reason             text NOT NULL DEFAULT '',
    PRIMARY KEY (rid, started_at),
    CHECK (kind = 'adjustment' OR (cost_nusd >= 0 AND cost_ucr >= 0))
) PARTITION BY RANGE (started_at);

CREATE INDEX ledger_started ON ledger (started_at);
CREATE INDEX ledger_answer ON ledger (answer_id) WHERE answer_id <> '';
CREATE INDEX ledger_token ON ledger (token, started_at);
CREATE INDEX ledger_user ON ledger (user_id, started_at) WHERE user_id IS NOT NULL;
CREATE INDEX ledger_team ON ledger (team_id, started_at) WHERE team_id IS NOT NULL;
CREATE TABLE ledger_default PARTITION OF ledger DEFAULT;

COMMENT ON TABLE ledger IS 'One row per request that was sent upstream, and per adjustment; exactly once by rid';
COMMENT ON COLUMN ledger.rid IS 'Request id made by the gate; its first 48 bits are milliseconds';
COMMENT ON COLUMN ledger.started_at IS 'The time in rid: the partition must follow from the id, or a replay could land twice';
COMMENT ON COLUMN ledger.admitted_at IS 'When Redis admitted it';
COMMENT ON COLUMN ledger.recorded_at IS 'When this row was written';
COMMENT ON COLUMN ledger.cost_nusd IS 'What was charged, nano-USD; an adjustment may be negative';
COMMENT ON COLUMN ledger.estimated IS 'Charged without the provider''s own count';
COMMENT ON COLUMN ledger.fixed IS 'An estimate that the real count replaced afterwards';
COMMENT ON COLUMN ledger.late IS 'Settled after its hold was gone';
COMMENT ON COLUMN ledger.answer_id IS 'The id in the provider''s answer';

-- Months ahead; what no month covers goes to the default partition.
CREATE FUNCTION kt_ledger_partitions(ahead integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    m date;
    made integer := 0;
BEGIN
    FOR i IN -1 .. ahead LOOP
        m := (date_trunc('month', now() AT TIME ZONE 'UTC') + make_interval(months => i))::date;
        IF to_regclass(format('ledger_%s', to_char(m, 'YYYYMM'))) IS NULL
           AND NOT EXISTS (SELECT 1 FROM ledger_default
                            WHERE started_at >= m::timestamp AT TIME ZONE 'UTC'
                              AND started_at < (m + interval '1 month') AT TIME ZONE 'UTC') THEN
            EXECUTE format('CREATE TABLE ledger_%s PARTITION OF ledger FOR VALUES FROM (%L) TO (%L)',
                           to_char(m, 'YYYYMM'), m::timestamp AT TIME ZONE 'UTC',
                           (m + interval '1 month') AT TIME ZONE 'UTC');
            made := made + 1;
        END IF;
    END LOOP;
    RETURN made;
END $$;
SELECT kt_ledger_partitions(3);

CREATE TABLE ledger_rejects (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    entry_id     text NOT NULL,
    position     integer NOT NULL,
    event        bytea NOT NULL,
    receipt      bytea NOT NULL,
    code         bytea NOT NULL,
    reason       text NOT NULL,
    rejected_at  timestamptz NOT NULL DEFAULT now(),
    UNIQUE (entry_id, position)
);
COMMENT ON TABLE ledger_rejects IS 'Events that could not be read; kept whole, they never stop the others';

CREATE TABLE daily_usage (
    day                date NOT NULL,
    ent                text NOT NULL,
    model              text NOT NULL,
    provider           text NOT NULL,
    requests           bigint NOT NULL DEFAULT 0,
    failed             bigint NOT NULL DEFAULT 0,
    prompt_tokens      bigint NOT NULL DEFAULT 0,
    completion_tokens  bigint NOT NULL DEFAULT 0,
    cache_read_tokens  bigint NOT NULL DEFAULT 0,
    cache_write_tokens bigint NOT NULL DEFAULT 0,
    cost_nusd          bigint NOT NULL DEFAULT 0,
    cost_ucr           bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (ent, day, model, provider)
);
CREATE INDEX daily_usage_day ON daily_usage (day);
COMMENT ON TABLE daily_usage IS 'Roll-up of the ledger per entity, UTC day, model and provider';

CREATE TABLE credit_ledger (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    ent             text NOT NULL,
    at              timestamptz NOT NULL DEFAULT now(),
    kind            text NOT NULL CHECK (kind IN ('allocation', 'purchase', 'refund', 'adjustment', 'usage')),
    delta_ucr       bigint NOT NULL,
    balance_ucr     bigint NOT NULL,
    reason          text NOT NULL DEFAULT '',
    actor           text NOT NULL DEFAULT '',
    rid             text,
    idempotency_key text UNIQUE
);
CREATE INDEX credit_ledger_ent ON credit_ledger (ent, id);
COMMENT ON TABLE credit_ledger IS 'Credit movements, append only, micro-credit';

CREATE TABLE audit (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at            timestamptz NOT NULL DEFAULT now(),
    actor         text NOT NULL,
    actor_key     text NOT NULL DEFAULT '',
    changed_by    text,
    action        text NOT NULL CHECK (action IN ('created', 'updated', 'deleted', 'blocked', 'unblocked', 'rotated')),
    object_type   text NOT NULL,
    object_id     text NOT NULL,
    before        jsonb,
    after         jsonb
);
CREATE INDEX audit_object ON audit (object_type, object_id, id);
COMMENT ON TABLE audit IS 'Who changed what; written in the transaction of the change, append only, no secrets';

CREATE TRIGGER credit_ledger_append BEFORE UPDATE OR DELETE ON credit_ledger
    FOR EACH ROW EXECUTE FUNCTION kt_append_only();
CREATE TRIGGER audit_append BEFORE UPDATE OR DELETE ON audit
    FOR EACH ROW EXECUTE FUNCTION kt_append_only();

CREATE TABLE outbox (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    ent         text NOT NULL,
    op          text NOT NULL CHECK (op IN ('set', 'del', 'registry')),
    version     bigint NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX outbox_created ON outbox (created_at);
COMMENT ON TABLE outbox IS 'Entities whose copy in Redis may be old; a row goes when the push succeeded';

CREATE TABLE models (
    model_id          text PRIMARY KEY CHECK (kt_id_ok(model_id)),
    model_name        text NOT NULL CHECK (kt_id_ok(model_name)),
    source            text NOT NULL CHECK (source IN ('api', 'import')),
    kind              text NOT NULL DEFAULT 'alias' CHECK (kind IN ('alias', 'chain')),
    status            kt_status NOT NULL DEFAULT 'active',
    blocked           boolean NOT NULL DEFAULT false,
    litellm_params    jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(litellm_params) = 'object'),
    model_info        jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(model_info) = 'object'),
    upstream_model    text,
    provider          text NOT NULL DEFAULT '',
    mode              text NOT NULL DEFAULT 'chat',
    input_pusd        bigint CHECK (input_pusd >= 0),
    output_pusd       bigint CHECK (output_pusd >= 0),
    cache_read_pusd   bigint CHECK (cache_read_pusd >= 0),
    cache_write_pusd  bigint CHECK (cache_write_pusd >= 0),
    reasoning_pusd    bigint CHECK (reasoning_pusd >= 0),
    max_output_tokens bigint CHECK (max_output_tokens > 0),
    max_input_tokens  bigint CHECK (max_input_tokens > 0),
    created_at        timestamptz NOT NULL DEFAULT now(),
    created_by        text,
    updated_at        timestamptz NOT NULL DEFAULT now(),
    updated_by        text
);
CREATE INDEX models_name ON models (model_name);
CREATE UNIQUE INDEX models_import ON models (model_name) WHERE source = 'import';
COMMENT ON TABLE models IS 'Models and prices: deployments made over the API and an imported price list';
COMMENT ON COLUMN models.input_pusd IS 'Pico-USD per token; null: not known, 0: free';
COMMENT ON COLUMN models.litellm_params IS 'As sent; secret values are sealed';

CREATE TABLE model_chains (
    model_name  text NOT NULL,
    position    integer NOT NULL CHECK (position >= 0),
    member      text NOT NULL,
    PRIMARY KEY (model_name, position)
);
COMMENT ON TABLE model_chains IS 'Ordered fallbacks behind one public name';

CREATE TABLE access_groups (
    access_group_id    text PRIMARY KEY CHECK (kt_id_ok(access_group_id)),
    access_group_name  text NOT NULL UNIQUE CHECK (kt_id_ok(access_group_name)),
    display_name       text,
    description        text,
    status             kt_status NOT NULL DEFAULT 'active',
    extra              jsonb NOT NULL DEFAULT '{}',
    created_at         timestamptz NOT NULL DEFAULT now(),
    created_by         text,
    updated_at         timestamptz NOT NULL DEFAULT now(),
    updated_by         text
);
CREATE TABLE access_group_models (
    access_group_id  text NOT NULL REFERENCES access_groups ON DELETE CASCADE,
    model_name       text NOT NULL CHECK (kt_id_ok(model_name)),
    PRIMARY KEY (access_group_id, model_name)
);
CREATE TABLE access_group_members (
    access_group_id  text NOT NULL REFERENCES access_groups ON DELETE CASCADE,
    ent              text NOT NULL,
    PRIMARY KEY (access_group_id, ent)
);
CREATE INDEX access_group_members_ent ON access_group_members (ent);
COMMENT ON TABLE access_groups IS 'Named sets of models that keys and teams refer to';
COMMENT ON TABLE access_group_models IS 'Models of an access group';
COMMENT ON TABLE access_group_members IS 'Teams and keys that a group is attached to';

CREATE TABLE object_permissions (
    object_permission_id text PRIMARY KEY,
    permissions          jsonb NOT NULL DEFAULT '{}'
);
COMMENT ON TABLE object_permissions IS 'LiteLLM object_permission objects, kept as sent';

CREATE TABLE invitations (
    id           text PRIMARY KEY,
    secret_hash  text NOT NULL UNIQUE CHECK (secret_hash ~ '^[0-9a-f]{64}$'),
    user_id      text NOT NULL REFERENCES users ON DELETE CASCADE,
    is_accepted  boolean NOT NULL DEFAULT false,
    accepted_at  timestamptz,
    expires_at   timestamptz NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    created_by   text NOT NULL,
    updated_at   timestamptz NOT NULL DEFAULT now(),
    updated_by   text NOT NULL,
    CHECK (is_accepted = (accepted_at IS NOT NULL))
);
COMMENT ON TABLE invitations IS 'One-time invitations; only a hash of the secret is kept';

CREATE TABLE sessions (
    id_hash       text PRIMARY KEY CHECK (id_hash ~ '^[0-9a-f]{64}$'),
    user_id       text NOT NULL REFERENCES users ON DELETE CASCADE,
    csrf_hash     text NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    last_seen_at  timestamptz NOT NULL DEFAULT now(),
    expires_at    timestamptz NOT NULL,
    client_ip     text NOT NULL DEFAULT '',
    user_agent    text NOT NULL DEFAULT ''
);
CREATE INDEX sessions_user ON sessions (user_id);
COMMENT ON TABLE sessions IS 'Browser sessions; the cookie''s value is kept only as a hash';

CREATE TABLE identities (
    provider    text NOT NULL,
    subject     text NOT NULL,
    user_id     text NOT NULL REFERENCES users ON DELETE CASCADE,
    email       text,
    claims      jsonb NOT NULL DEFAULT '{}',
    created_at  timestamptz NOT NULL DEFAULT now(),
    last_login  timestamptz,
    PRIMARY KEY (provider, subject)
);
CREATE INDEX identities_user ON identities (user_id);
COMMENT ON TABLE identities IS 'Who a user is at an identity provider';

CREATE TABLE settings (
    name        text PRIMARY KEY,
    value       jsonb NOT NULL,
    updated_at  timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE settings IS 'Values that a daemon keeps for the others';
