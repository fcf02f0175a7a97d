-- The orders in which keys are listed.

CREATE INDEX keys_updated ON keys (updated_at, token);
CREATE INDEX keys_max_budget ON keys (max_budget_nusd, token);
