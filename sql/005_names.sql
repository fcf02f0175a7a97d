-- Names that people give: at most 255 bytes, no control characters.  They travel in
-- policies, ledger rows and headers.

CREATE FUNCTION kt_name_ok(name text) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT name IS NULL OR (octet_length(name) <= 255 AND name !~ '[[:cntrl:]]') $$;

CREATE FUNCTION kt_name_cut(name text) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT left(regexp_replace(name, '[[:cntrl:]]', '', 'g'), 63) $$;

UPDATE keys SET key_alias = kt_name_cut(key_alias) WHERE NOT kt_name_ok(key_alias);
UPDATE teams SET team_alias = kt_name_cut(team_alias) WHERE NOT kt_name_ok(team_alias);
UPDATE users SET user_alias = kt_name_cut(user_alias) WHERE NOT kt_name_ok(user_alias);
UPDATE organizations SET organization_alias = kt_name_cut(organization_alias)
 WHERE NOT kt_name_ok(organization_alias);
UPDATE customers SET alias = kt_name_cut(alias) WHERE NOT kt_name_ok(alias);

ALTER TABLE keys ADD CONSTRAINT keys_key_alias_check CHECK (kt_name_ok(key_alias));
ALTER TABLE teams ADD CONSTRAINT teams_team_alias_check CHECK (kt_name_ok(team_alias));
ALTER TABLE users ADD CONSTRAINT users_user_alias_check CHECK (kt_name_ok(user_alias));
ALTER TABLE organizations ADD CONSTRAINT organizations_organization_alias_check
    CHECK (kt_name_ok(organization_alias));
ALTER TABLE customers ADD CONSTRAINT customers_alias_check CHECK (kt_name_ok(alias));

-- An address that is too long for its index was refused by it before.
ALTER TABLE users ADD CONSTRAINT users_user_email_check CHECK (kt_name_ok(user_email)) NOT VALID;
ALTER TABLE memberships ADD CONSTRAINT memberships_user_email_check
    CHECK (kt_name_ok(user_email)) NOT VALID;

DROP FUNCTION kt_name_cut;
