-- Roles of users, requests that may be sent twice, keys that work on for a while.

ALTER TABLE users DROP CONSTRAINT users_user_role_check;
ALTER TABLE users ADD CONSTRAINT users_user_role_check CHECK (user_role IN ('proxy_admin',
    'proxy_admin_viewer', 'org_admin', 'internal_user', 'internal_user_viewer', 'team', 'customer'));

CREATE TABLE idempotency (
    id          text PRIMARY KEY CHECK (id ~ '^[0-9a-f]{64}$'),
    request     text NOT NULL,
    status      integer,
    answer      text,
    created_at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX idempotency_created ON idempotency (created_at);
COMMENT ON TABLE idempotency IS 'Mutations that were sent with an Idempotency-Key';
COMMENT ON COLUMN idempotency.id IS 'SHA-256 of the caller''s token and the key';
COMMENT ON COLUMN idempotency.request IS 'SHA-256 of method, path, query and body';
COMMENT ON COLUMN idempotency.answer IS 'The body of the answer, sealed; null when it was not kept';

CREATE INDEX audit_at ON audit (at);
CREATE INDEX organization_memberships_user ON organization_memberships (user_id);
