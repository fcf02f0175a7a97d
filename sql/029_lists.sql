-- Lists of models of members have no nulls: what is no name lets nothing in.
UPDATE memberships SET allowed_models = array_replace(allowed_models, NULL, 'no-default-models')
 WHERE array_position(allowed_models, NULL) IS NOT NULL;
ALTER TABLE memberships ADD CONSTRAINT memberships_allowed_models_check
    CHECK (array_position(allowed_models, NULL) IS NULL);
