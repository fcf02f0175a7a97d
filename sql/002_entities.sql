-- Everything a limit can sit on.  Amounts are nano-USD (_nusd); a row with a version is
-- compiled to Redis by the view kt_policy.  LiteLLM fields without a column of their own
-- live in `extra`.

CREATE TABLE budgets (
    budget_id          text PRIMARY KEY CHECK (kt_id_ok(budget_id)),
    max_budget_nusd    bigint CHECK (max_budget_nusd >= 0),
    soft_budget_nusd   bigint CHECK (soft_budget_nusd >= 0),
    max_parallel_requests bigint CHECK (max_parallel_requests >= 0),
    tpm_limit          bigint CHECK (tpm_limit >= 0),
    rpm_limit          bigint CHECK (rpm_limit >= 0),
    model_max_budget   jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(model_max_budget) = 'object'),
    budget_duration    text,
    budget_reset_at    timestamptz,
    created_at         timestamptz NOT NULL DEFAULT now(),
    created_by         text,
    updated_at         timestamptz NOT NULL DEFAULT now(),
    updated_by         text
);

CREATE TABLE organizations (
    organization_id    text PRIMARY KEY CHECK (kt_id_ok(organization_id)),
    ent                text NOT NULL UNIQUE GENERATED ALWAYS AS (kt_ent('org', organization_id)) STORED,
    organization_alias text,
    status             kt_status NOT NULL DEFAULT 'active',
    status_reason      text,
    budget_id          text REFERENCES budgets,
    max_budget_nusd    bigint CHECK (max_budget_nusd >= 0),
    soft_budget_nusd   bigint CHECK (soft_budget_nusd >= 0),
    tpm_limit          bigint CHECK (tpm_limit >= 0),
    rpm_limit          bigint CHECK (rpm_limit >= 0),
    max_parallel_requests bigint CHECK (max_parallel_requests >= 0),
    models             text[] NOT NULL DEFAULT '{}',
    metadata           jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(metadata) = 'object'),
    extra              jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(extra) = 'object'),
    budget_enforcement text CHECK (budget_enforcement IN ('strict', 'last_call')),
    budget_duration    text,
    period_kind        text NOT NULL DEFAULT 'none' CHECK (period_kind IN ('none', 'fixed', 'month')),
    period_len_s       bigint NOT NULL DEFAULT 0 CHECK (period_len_s >= 0),
    period_id          bigint NOT NULL DEFAULT 0 CHECK (period_id >= 0),
    period_end_s       bigint NOT NULL DEFAULT 0 CHECK (period_end_s >= 0),
    created_at         timestamptz NOT NULL DEFAULT now(),
    created_by         text,
    updated_at         timestamptz NOT NULL DEFAULT now(),
    updated_by         text,
    deleted_at         timestamptz,
    version            bigint NOT NULL DEFAULT 0,
    CHECK (period_kind = 'none' OR period_end_s > period_id),
    CHECK (period_kind <> 'fixed' OR period_len_s > 0)
);

CREATE TABLE teams (
    team_id            text PRIMARY KEY CHECK (kt_id_ok(team_id)),
    ent                text NOT NULL UNIQUE GENERATED ALWAYS AS (kt_ent('team', team_id)) STORED,
    team_alias         text,
    organization_id    text REFERENCES organizations,
    status             kt_status NOT NULL DEFAULT 'active',
    status_reason      text,
    blocked            boolean NOT NULL DEFAULT false,
    admins             text[] NOT NULL DEFAULT '{}',
    members            text[] NOT NULL DEFAULT '{}',
    metadata           jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(metadata) = 'object'),
    extra              jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(extra) = 'object'),
    max_budget_nusd    bigint CHECK (max_budget_nusd >= 0),
    soft_budget_nusd   bigint CHECK (soft_budget_nusd >= 0),
    tpm_limit          bigint CHECK (tpm_limit >= 0),
    rpm_limit          bigint CHECK (rpm_limit >= 0),
    max_parallel_requests bigint CHECK (max_parallel_requests >= 0),
    models             text[] NOT NULL DEFAULT '{}',
    access_group_ids   text[] NOT NULL DEFAULT '{}',
    team_member_permissions text[] NOT NULL DEFAULT '{}',
    policies           text[] NOT NULL DEFAULT '{}',
    model_max_budget   jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(model_max_budget) = 'object'),
    budget_limits      jsonb NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(budget_limits) = 'array'),
    model_aliases      jsonb,
    router_settings    jsonb,
    member_budget_id   text REFERENCES budgets,
    credit_limit_ucr   bigint CHECK (credit_limit_ucr >= 0),
    markup_bp          integer NOT NULL DEFAULT 0 CHECK (markup_bp >= 0),
    implicit           boolean NOT NULL DEFAULT false,
    budget_enforcement text CHECK (budget_enforcement IN ('strict', 'last_call')),
    budget_duration    text,
    period_kind        text NOT NULL DEFAULT 'none' CHECK (period_kind IN ('none', 'fixed', 'month')),
    period_len_s       bigint NOT NULL DEFAULT 0 CHECK (period_len_s >= 0),
    period_id          bigint NOT NULL DEFAULT 0 CHECK (period_id >= 0),
    period_end_s       bigint NOT NULL DEFAULT 0 CHECK (period_end_s >= 0),
    created_at         timestamptz NOT NULL DEFAULT now(),
    created_by         text,
    updated_at         timestamptz NOT NULL DEFAULT now(),
    updated_by         text,
    version            bigint NOT NULL DEFAULT 0,
    CHECK (period_kind = 'none' OR period_end_s > period_id),
    CHECK (period_kind <> 'fixed' OR period_len_s > 0)
);

CREATE INDEX teams_organization ON teams (organization_id);

CREATE TABLE users (
    user_id            text PRIMARY KEY CHECK (kt_id_ok(user_id)),
    ent                text NOT NULL UNIQUE GENERATED ALWAYS AS (kt_ent('user', user_id)) STORED,
    user_alias         text,
    user_email         text,
    user_role          text CHECK (user_role IN ('proxy_admin', 'proxy_admin_viewer', 'internal_user',
                                             'internal_user_viewer', 'team', 'customer')),
    is_owner           boolean NOT NULL DEFAULT false,
    password_hash      text,
    sso_user_id        text UNIQUE,
    organization_id    text,
    teams              text[] NOT NULL DEFAULT '{}',
    models             text[] NOT NULL DEFAULT '{}',
    metadata           jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(metadata) = 'object'),
    extra              jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(extra) = 'object'),
    max_budget_nusd    bigint CHECK (max_budget_nusd >= 0),
    soft_budget_nusd   bigint CHECK (soft_budget_nusd >= 0),
    tpm_limit          bigint CHECK (tpm_limit >= 0),
    rpm_limit          bigint CHECK (rpm_limit >= 0),
    max_parallel_requests bigint CHECK (max_parallel_requests >= 0),
    allowed_cache_controls text[] NOT NULL DEFAULT '{}',
    policies           text[] NOT NULL DEFAULT '{}',
    model_max_budget   jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(model_max_budget) = 'object'),
    budget_limits      jsonb NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(budget_limits) = 'array'),
    blocked            boolean NOT NULL DEFAULT false,
    implicit           boolean NOT NULL DEFAULT false,
    budget_enforcement text CHECK (budget_enforcement IN ('strict', 'last_call')),
    budget_duration    text,
    period_kind        text NOT NULL DEFAULT 'none' CHECK (period_kind IN ('none', 'fixed', 'month')),
    period_len_s       bigint NOT NULL DEFAULT 0 CHECK (period_len_s >= 0),
    period_id          bigint NOT NULL DEFAULT 0 CHECK (period_id >= 0),
    period_end_s       bigint NOT NULL DEFAULT 0 CHECK (period_end_s >= 0),
    created_at         timestamptz NOT NULL DEFAULT now(),
    created_by         text,
    updated_at         timestamptz NOT NULL DEFAULT now(),
    updated_by         text,
    version            bigint NOT NULL DEFAULT 0,
    CHECK (period_kind = 'none' OR period_end_s > period_id),
    CHECK (period_kind <> 'fixed' OR period_len_s > 0)
);

CREATE UNIQUE INDEX users_email ON users (lower(user_email));

CREATE TABLE memberships (
    team_id            text NOT NULL CHECK (kt_id_ok(team_id)),
    user_id            text NOT NULL CHECK (kt_id_ok(user_id)),
    ent                text NOT NULL UNIQUE GENERATED ALWAYS AS
                       ('member:' || kt_encode(team_id) || '/' || kt_encode(user_id)) STORED,
    role               text NOT NULL DEFAULT 'user' CHECK (role IN ('admin', 'user')),
    user_email         text,
    budget_id          text REFERENCES budgets,
    implicit           boolean NOT NULL DEFAULT false,
    budget_enforcement text CHECK (budget_enforcement IN ('strict', 'last_call')),
    budget_duration    text,
    period_kind        text NOT NULL DEFAULT 'none' CHECK (period_kind IN ('none', 'fixed', 'month')),
    period_len_s       bigint NOT NULL DEFAULT 0 CHECK (period_len_s >= 0),
    period_id          bigint NOT NULL DEFAULT 0 CHECK (period_id >= 0),
    period_end_s       bigint NOT NULL DEFAULT 0 CHECK (period_end_s >= 0),
    created_at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (team_id, user_id),
    version            bigint NOT NULL DEFAULT 0,
    CHECK (period_kind = 'none' OR period_end_s > period_id),
    CHECK (period_kind <> 'fixed' OR period_len_s > 0)
);

CREATE INDEX memberships_user ON memberships (user_id);

CREATE TABLE organization_memberships (
    organization_id    text NOT NULL REFERENCES organizations,
    user_id            text NOT NULL CHECK (kt_id_ok(user_id)),
    user_role          text CHECK (user_role IN ('org_admin', 'internal_user', 'internal_user_viewer')),
    budget_id          text REFERENCES budgets,
    created_at         timestamptz NOT NULL DEFAULT now(),
    updated_at         timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (organization_id, user_id)
);

CREATE TABLE keys (
    token              text PRIMARY KEY CHECK (token ~ '^[0-9a-f]{64}$'),
    ent                text NOT NULL UNIQUE GENERATED ALWAYS AS ('key:' || token) STORED,
    key_name           text,
    key_alias          text,
    user_id            text CHECK (kt_id_ok(user_id)),
    team_id            text CHECK (kt_id_ok(team_id)),
    organization_id    text REFERENCES organizations,
    budget_id          text REFERENCES budgets,
    status             kt_status NOT NULL DEFAULT 'active',
    blocked            boolean,
    is_primary         boolean NOT NULL DEFAULT false,
    sealed             bytea,
    expires            timestamptz,
    models             text[] NOT NULL DEFAULT '{}',
    aliases            jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(aliases) = 'object'),
    config             jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(config) = 'object'),
    permissions        jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(permissions) = 'object'),
    metadata           jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(metadata) = 'object'),
    extra              jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(extra) = 'object'),
    max_budget_nusd    bigint CHECK (max_budget_nusd >= 0),
    soft_budget_nusd   bigint CHECK (soft_budget_nusd >= 0),
    tpm_limit          bigint CHECK (tpm_limit >= 0),
    rpm_limit          bigint CHECK (rpm_limit >= 0),
    max_parallel_requests bigint CHECK (max_parallel_requests >= 0),
    model_max_budget   jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(model_max_budget) = 'object'),
    budget_limits      jsonb NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(budget_limits) = 'array'),
    allowed_cache_controls text[] NOT NULL DEFAULT '{}',
    allowed_routes     text[] NOT NULL DEFAULT '{}',
    policies           text[] NOT NULL DEFAULT '{}',
    access_group_ids   text[] NOT NULL DEFAULT '{}',
    router_settings    jsonb,
    auto_rotate        boolean NOT NULL DEFAULT false,
    rotation_interval  text,
    rotation_count     integer NOT NULL DEFAULT 0,
    last_rotation_at   timestamptz,
    key_rotation_at    timestamptz,
    budget_enforcement text CHECK (budget_enforcement IN ('strict', 'last_call')),
    budget_duration    text,
    period_kind        text NOT NULL DEFAULT 'none' CHECK (period_kind IN ('none', 'fixed', 'month')),
    period_len_s       bigint NOT NULL DEFAULT 0 CHECK (period_len_s >= 0),
    period_id          bigint NOT NULL DEFAULT 0 CHECK (period_id >= 0),
    period_end_s       bigint NOT NULL DEFAULT 0 CHECK (period_end_s >= 0),
    created_at         timestamptz NOT NULL DEFAULT now(),
    created_by         text,
    updated_at         timestamptz NOT NULL DEFAULT now(),
    updated_by         text,
    version            bigint NOT NULL DEFAULT 0,
    CHECK (period_kind = 'none' OR period_end_s > period_id),
    CHECK (period_kind <> 'fixed' OR period_len_s > 0)
);

CREATE UNIQUE INDEX keys_alias ON keys (key_alias);
CREATE INDEX keys_user ON keys (user_id, team_id);
CREATE INDEX keys_team ON keys (team_id);
CREATE INDEX keys_organization ON keys (organization_id);
CREATE INDEX keys_created ON keys (created_at, token);

CREATE TABLE deleted_keys (
    id                 bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    token              text NOT NULL CHECK (token ~ '^[0-9a-f]{64}$'),
    key_alias          text,
    user_id            text,
    team_id            text,
    organization_id    text,
    row                jsonb NOT NULL,
    spend_nusd         bigint NOT NULL DEFAULT 0,
    deleted_at         timestamptz NOT NULL DEFAULT now(),
    deleted_by         text,
    deleted_by_api_key text,
    litellm_changed_by text
);

CREATE INDEX deleted_keys_token ON deleted_keys (token);
CREATE INDEX deleted_keys_at ON deleted_keys (deleted_at);

CREATE TABLE customers (
    user_id            text PRIMARY KEY CHECK (kt_id_ok(user_id)),
    ent                text NOT NULL UNIQUE GENERATED ALWAYS AS (kt_ent('customer', user_id)) STORED,
    alias              text,
    allowed_model_region text,
    default_model      text,
    budget_id          text REFERENCES budgets,
    blocked            boolean NOT NULL DEFAULT false,
    budget_enforcement text CHECK (budget_enforcement IN ('strict', 'last_call')),
    budget_duration    text,
    period_kind        text NOT NULL DEFAULT 'none' CHECK (period_kind IN ('none', 'fixed', 'month')),
    period_len_s       bigint NOT NULL DEFAULT 0 CHECK (period_len_s >= 0),
    period_id          bigint NOT NULL DEFAULT 0 CHECK (period_id >= 0),
    period_end_s       bigint NOT NULL DEFAULT 0 CHECK (period_end_s >= 0),
    created_at         timestamptz NOT NULL DEFAULT now(),
    version            bigint NOT NULL DEFAULT 0,
    CHECK (period_kind = 'none' OR period_end_s > period_id),
    CHECK (period_kind <> 'fixed' OR period_len_s > 0)
);

CREATE TABLE tags (
    tag_name           text PRIMARY KEY CHECK (kt_id_ok(tag_name)),
    ent                text NOT NULL UNIQUE GENERATED ALWAYS AS (kt_ent('tag', tag_name)) STORED,
    description        text,
    models             text[] NOT NULL DEFAULT '{}',
    model_info         jsonb,
    budget_id          text REFERENCES budgets,
    budget_enforcement text CHECK (budget_enforcement IN ('strict', 'last_call')),
    budget_duration    text,
    period_kind        text NOT NULL DEFAULT 'none' CHECK (period_kind IN ('none', 'fixed', 'month')),
    period_len_s       bigint NOT NULL DEFAULT 0 CHECK (period_len_s >= 0),
    period_id          bigint NOT NULL DEFAULT 0 CHECK (period_id >= 0),
    period_end_s       bigint NOT NULL DEFAULT 0 CHECK (period_end_s >= 0),
    created_at         timestamptz NOT NULL DEFAULT now(),
    created_by         text,
    updated_at         timestamptz NOT NULL DEFAULT now(),
    updated_by         text,
    version            bigint NOT NULL DEFAULT 0,
    CHECK (period_kind = 'none' OR period_end_s > period_id),
    CHECK (period_kind <> 'fixed' OR period_len_s > 0)
);

CREATE TABLE proxy (
    ent                text PRIMARY KEY DEFAULT 'global' CHECK (ent = 'global'),
    max_budget_nusd    bigint CHECK (max_budget_nusd >= 0),
    max_parallel_requests bigint CHECK (max_parallel_requests >= 0),
    budget_enforcement text CHECK (budget_enforcement IN ('strict', 'last_call')),
    budget_duration    text,
    period_kind        text NOT NULL DEFAULT 'none' CHECK (period_kind IN ('none', 'fixed', 'month')),
    period_len_s       bigint NOT NULL DEFAULT 0 CHECK (period_len_s >= 0),
    period_id          bigint NOT NULL DEFAULT 0 CHECK (period_id >= 0),
    period_end_s       bigint NOT NULL DEFAULT 0 CHECK (period_end_s >= 0),
    version            bigint NOT NULL DEFAULT 0,
    CHECK (period_kind = 'none' OR period_end_s > period_id),
    CHECK (period_kind <> 'fixed' OR period_len_s > 0)
);

INSERT INTO proxy DEFAULT VALUES;

CREATE TABLE submeters (
    ent                text PRIMARY KEY,
    owner              text NOT NULL,
    kind               text NOT NULL CHECK (kind IN ('window', 'model')),
    model              text CHECK ((kind = 'model') = (model IS NOT NULL)),
    limit_nusd         bigint CHECK (limit_nusd >= 0),
    tpm_limit          bigint CHECK (tpm_limit >= 0),
    rpm_limit          bigint CHECK (rpm_limit >= 0),
    gt                 boolean NOT NULL DEFAULT false,
    budget_duration    text,
    period_kind        text NOT NULL DEFAULT 'none' CHECK (period_kind IN ('none', 'fixed', 'month')),
    period_len_s       bigint NOT NULL DEFAULT 0 CHECK (period_len_s >= 0),
    period_id          bigint NOT NULL DEFAULT 0 CHECK (period_id >= 0),
    period_end_s       bigint NOT NULL DEFAULT 0 CHECK (period_end_s >= 0),
    version            bigint NOT NULL DEFAULT 0,
    CHECK (period_kind = 'none' OR period_end_s > period_id),
    CHECK (period_kind <> 'fixed' OR period_len_s > 0)
);

CREATE INDEX submeters_owner ON submeters (owner);

CREATE TRIGGER organizations_version BEFORE INSERT OR UPDATE ON organizations
    FOR EACH ROW EXECUTE FUNCTION kt_renew_version();
CREATE TRIGGER teams_version BEFORE INSERT OR UPDATE ON teams
    FOR EACH ROW EXECUTE FUNCTION kt_renew_version();
CREATE TRIGGER users_version BEFORE INSERT OR UPDATE ON users
    FOR EACH ROW EXECUTE FUNCTION kt_renew_version();
CREATE TRIGGER memberships_version BEFORE INSERT OR UPDATE ON memberships
    FOR EACH ROW EXECUTE FUNCTION kt_renew_version();
CREATE TRIGGER keys_version BEFORE INSERT OR UPDATE ON keys
    FOR EACH ROW EXECUTE FUNCTION kt_renew_version();
CREATE TRIGGER customers_version BEFORE INSERT OR UPDATE ON customers
    FOR EACH ROW EXECUTE FUNCTION kt_renew_version();
CREATE TRIGGER tags_version BEFORE INSERT OR UPDATE ON tags
    FOR EACH ROW EXECUTE FUNCTION kt_renew_version();
CREATE TRIGGER proxy_version BEFORE INSERT OR UPDATE ON proxy
    FOR EACH ROW EXECUTE FUNCTION kt_renew_version();
CREATE TRIGGER submeters_version BEFORE INSERT OR UPDATE ON submeters
    FOR EACH ROW EXECUTE FUNCTION kt_renew_version();

UPDATE proxy SET ent = ent;

COMMENT ON TABLE budgets IS 'Limits that several rows share; a key, membership, customer or tag may point here';
COMMENT ON TABLE organizations IS 'Tenants; an organization owns teams and may limit all of them together';
COMMENT ON TABLE teams IS 'Groups of keys and people; implicit rows were made because a key named an unknown team';
COMMENT ON TABLE users IS 'People; implicit rows were made because a key named an unknown user';
COMMENT ON TABLE memberships IS 'A user in a team and what that pair may spend; implicit rows only carry the meter';
COMMENT ON TABLE organization_memberships IS 'A user in an organization, with the role there';
COMMENT ON TABLE keys IS 'Live virtual keys; the secret itself is not here, token is its SHA-256';
COMMENT ON TABLE deleted_keys IS 'Archive of deleted keys, the row as it was';
COMMENT ON TABLE customers IS 'End users of the clients (body field user)';
COMMENT ON TABLE tags IS 'Request tags that carry a budget';
COMMENT ON TABLE proxy IS 'The one row of the whole proxy (global budget)';
COMMENT ON TABLE submeters IS 'Meters beside the main one of an entity: extra budget windows and limits per model';
COMMENT ON COLUMN organizations.ent IS 'Entity name in Redis, derived';
COMMENT ON COLUMN organizations.version IS 'Renewed by every write; Redis ignores older ones';
COMMENT ON COLUMN organizations.period_id IS 'Start of a period of this budget, epoch seconds; meters are kept per period';
COMMENT ON COLUMN organizations.period_end_s IS 'End of that period; later ones follow from kind and length';
COMMENT ON COLUMN organizations.period_kind IS 'none: never renews; fixed: period_len_s each; month: calendar months UTC';
COMMENT ON COLUMN organizations.period_len_s IS 'Length of a fixed period in seconds';
COMMENT ON COLUMN organizations.budget_duration IS 'As the client sent it';
COMMENT ON COLUMN organizations.budget_enforcement IS 'strict: used + held never above the limit; last_call: admitted while anything is left; null: the configured default';
COMMENT ON COLUMN teams.ent IS 'Entity name in Redis, derived';
COMMENT ON COLUMN teams.version IS 'Renewed by every write; Redis ignores older ones';
COMMENT ON COLUMN teams.period_id IS 'Start of a period of this budget, epoch seconds; meters are kept per period';
COMMENT ON COLUMN teams.period_end_s IS 'End of that period; later ones follow from kind and length';
COMMENT ON COLUMN teams.period_kind IS 'none: never renews; fixed: period_len_s each; month: calendar months UTC';
COMMENT ON COLUMN teams.period_len_s IS 'Length of a fixed period in seconds';
COMMENT ON COLUMN teams.budget_duration IS 'As the client sent it';
COMMENT ON COLUMN teams.budget_enforcement IS 'strict: used + held never above the limit; last_call: admitted while anything is left; null: the configured default';
COMMENT ON COLUMN users.ent IS 'Entity name in Redis, derived';
COMMENT ON COLUMN users.version IS 'Renewed by every write; Redis ignores older ones';
COMMENT ON COLUMN users.period_id IS 'Start of a period of this budget, epoch seconds; meters are kept per period';
COMMENT ON COLUMN users.period_end_s IS 'End of that period; later ones follow from kind and length';
COMMENT ON COLUMN users.period_kind IS 'none: never renews; fixed: period_len_s each; month: calendar months UTC';
COMMENT ON COLUMN users.period_len_s IS 'Length of a fixed period in seconds';
COMMENT ON COLUMN users.budget_duration IS 'As the client sent it';
COMMENT ON COLUMN users.budget_enforcement IS 'strict: used + held never above the limit; last_call: admitted while anything is left; null: the configured default';
COMMENT ON COLUMN memberships.ent IS 'Entity name in Redis, derived';
COMMENT ON COLUMN memberships.version IS 'Renewed by every write; Redis ignores older ones';
COMMENT ON COLUMN memberships.period_id IS 'Start of a period of this budget, epoch seconds; meters are kept per period';
COMMENT ON COLUMN memberships.period_end_s IS 'End of that period; later ones follow from kind and length';
COMMENT ON COLUMN memberships.period_kind IS 'none: never renews; fixed: period_len_s each; month: calendar months UTC';
COMMENT ON COLUMN memberships.period_len_s IS 'Length of a fixed period in seconds';
COMMENT ON COLUMN memberships.budget_duration IS 'As the client sent it';
COMMENT ON COLUMN memberships.budget_enforcement IS 'strict: used + held never above the limit; last_call: admitted while anything is left; null: the configured default';
COMMENT ON COLUMN keys.ent IS 'Entity name in Redis, derived';
COMMENT ON COLUMN keys.version IS 'Renewed by every write; Redis ignores older ones';
COMMENT ON COLUMN keys.period_id IS 'Start of a period of this budget, epoch seconds; meters are kept per period';
COMMENT ON COLUMN keys.period_end_s IS 'End of that period; later ones follow from kind and length';
COMMENT ON COLUMN keys.period_kind IS 'none: never renews; fixed: period_len_s each; month: calendar months UTC';
COMMENT ON COLUMN keys.period_len_s IS 'Length of a fixed period in seconds';
COMMENT ON COLUMN keys.budget_duration IS 'As the client sent it';
COMMENT ON COLUMN keys.budget_enforcement IS 'strict: used + held never above the limit; last_call: admitted while anything is left; null: the configured default';
COMMENT ON COLUMN customers.ent IS 'Entity name in Redis, derived';
COMMENT ON COLUMN customers.version IS 'Renewed by every write; Redis ignores older ones';
COMMENT ON COLUMN customers.period_id IS 'Start of a period of this budget, epoch seconds; meters are kept per period';
COMMENT ON COLUMN customers.period_end_s IS 'End of that period; later ones follow from kind and length';
COMMENT ON COLUMN customers.period_kind IS 'none: never renews; fixed: period_len_s each; month: calendar months UTC';
COMMENT ON COLUMN customers.period_len_s IS 'Length of a fixed period in seconds';
COMMENT ON COLUMN customers.budget_duration IS 'As the client sent it';
COMMENT ON COLUMN customers.budget_enforcement IS 'strict: used + held never above the limit; last_call: admitted while anything is left; null: the configured default';
COMMENT ON COLUMN tags.ent IS 'Entity name in Redis, derived';
COMMENT ON COLUMN tags.version IS 'Renewed by every write; Redis ignores older ones';
COMMENT ON COLUMN tags.period_id IS 'Start of a period of this budget, epoch seconds; meters are kept per period';
COMMENT ON COLUMN tags.period_end_s IS 'End of that period; later ones follow from kind and length';
COMMENT ON COLUMN tags.period_kind IS 'none: never renews; fixed: period_len_s each; month: calendar months UTC';
COMMENT ON COLUMN tags.period_len_s IS 'Length of a fixed period in seconds';
COMMENT ON COLUMN tags.budget_duration IS 'As the client sent it';
COMMENT ON COLUMN tags.budget_enforcement IS 'strict: used + held never above the limit; last_call: admitted while anything is left; null: the configured default';
COMMENT ON COLUMN proxy.ent IS 'Entity name in Redis, derived';
COMMENT ON COLUMN proxy.version IS 'Renewed by every write; Redis ignores older ones';
COMMENT ON COLUMN proxy.period_id IS 'Start of a period of this budget, epoch seconds; meters are kept per period';
COMMENT ON COLUMN proxy.period_end_s IS 'End of that period; later ones follow from kind and length';
COMMENT ON COLUMN proxy.period_kind IS 'none: never renews; fixed: period_len_s each; month: calendar months UTC';
COMMENT ON COLUMN proxy.period_len_s IS 'Length of a fixed period in seconds';
COMMENT ON COLUMN proxy.budget_duration IS 'As the client sent it';
COMMENT ON COLUMN proxy.budget_enforcement IS 'strict: used + held never above the limit; last_call: admitted while anything is left; null: the configured default';
COMMENT ON COLUMN submeters.ent IS 'Entity name in Redis, derived';
COMMENT ON COLUMN submeters.version IS 'Renewed by every write; Redis ignores older ones';
COMMENT ON COLUMN submeters.period_id IS 'Start of a period of this budget, epoch seconds; meters are kept per period';
COMMENT ON COLUMN submeters.period_end_s IS 'End of that period; later ones follow from kind and length';
COMMENT ON COLUMN submeters.period_kind IS 'none: never renews; fixed: period_len_s each; month: calendar months UTC';
COMMENT ON COLUMN submeters.period_len_s IS 'Length of a fixed period in seconds';
COMMENT ON COLUMN submeters.budget_duration IS 'As the client sent it';
COMMENT ON COLUMN keys.token IS 'Lower-case hex SHA-256 of the whole key';
COMMENT ON COLUMN keys.key_name IS 'sk-... and the last four characters';
COMMENT ON COLUMN keys.sealed IS 'Encrypted copy of a key that its owner may read again';
COMMENT ON COLUMN keys.extra IS 'LiteLLM fields without a column';
COMMENT ON COLUMN teams.extra IS 'LiteLLM fields without a column';
COMMENT ON COLUMN users.extra IS 'LiteLLM fields without a column';
COMMENT ON COLUMN teams.member_budget_id IS 'Budget of members who have none of their own';
COMMENT ON COLUMN teams.credit_limit_ucr IS 'Prepaid credits in micro-credit; null: not prepaid';
COMMENT ON COLUMN teams.markup_bp IS 'Client price over provider price, basis points';
COMMENT ON COLUMN keys.max_budget_nusd IS 'Limit of the running period in nano-USD';
COMMENT ON COLUMN deleted_keys.row IS 'The whole row of keys';
COMMENT ON COLUMN submeters.owner IS 'Entity that the meter belongs to';
COMMENT ON COLUMN users.password_hash IS 'scrypt, PHC string';
COMMENT ON COLUMN submeters.gt IS 'Refuse above the limit instead of at it';

CREATE TABLE masters (
    token    text PRIMARY KEY CHECK (token ~ '^[0-9a-f]{64}$'),
    ent      text NOT NULL UNIQUE GENERATED ALWAYS AS ('key:' || token) STORED,
    version  bigint NOT NULL DEFAULT 0
);
COMMENT ON TABLE masters IS 'Hash of the master key in use, so that what it spends is counted';
CREATE TRIGGER masters_version BEFORE INSERT OR UPDATE ON masters
    FOR EACH ROW EXECUTE FUNCTION kt_renew_version();
