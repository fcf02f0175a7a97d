-- A row that Redis refuses waits by itself.

ALTER TABLE outbox ADD COLUMN attempts integer NOT NULL DEFAULT 0;
ALTER TABLE outbox ADD COLUMN last_error text;
ALTER TABLE outbox ADD COLUMN retry_at timestamptz;
CREATE INDEX outbox_stuck ON outbox (id) WHERE attempts > 0;

COMMENT ON COLUMN outbox.attempts IS 'How often Redis refused this very row';
COMMENT ON COLUMN outbox.last_error IS 'What Redis said then';
COMMENT ON COLUMN outbox.retry_at IS 'Not tried again before; null: at once';
