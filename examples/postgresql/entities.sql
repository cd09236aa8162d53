-- The topic `entities` as a table, beside those of tables.sql: for who runs `el4ner worker entities`. mentions.entity_id of
-- those names a row here, and the row says which entity that is now: itself, or merged_into. It can be run again:
--
--     psql -v ON_ERROR_STOP=1 -f entities.sql

BEGIN;
SET LOCAL client_min_messages = warning;

-- One row per entity over all documents. The connector writes the first five columns.
CREATE TABLE IF NOT EXISTS el4ner.canonical_entities (
    entity_id       text PRIMARY KEY,
    message         text NOT NULL,    -- as it stands on the topic: schemas/entities.v1.json
    kafka_partition integer NOT NULL,
    kafka_offset    bigint NOT NULL,
    kafka_timestamp bigint NOT NULL,
    type            text NOT NULL,
    name            text NOT NULL,
    merged_into     text,             -- the id of the entity that it is; null: it is one itself
    aliases         text[] NOT NULL,
    first_seen      timestamptz,
    last_seen       timestamptz,
    mentions        bigint            -- in all windows that are kept
);
CREATE INDEX IF NOT EXISTS canonical_entities_name ON el4ner.canonical_entities (type, left(name, 500));
CREATE INDEX IF NOT EXISTS canonical_entities_merged_into ON el4ner.canonical_entities (merged_into);

CREATE OR REPLACE FUNCTION el4ner.is_before(one el4ner.canonical_entities, other el4ner.canonical_entities)
RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT one.kafka_partition = other.kafka_partition
        AND one.kafka_offset < other.kafka_offset
        AND one.kafka_timestamp <= other.kafka_timestamp
$$;

CREATE OR REPLACE FUNCTION el4ner.read_entity() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
    body jsonb;
BEGIN
    IF NEW.message IS NULL THEN
        DELETE FROM el4ner.canonical_entities AS stored
        WHERE stored.entity_id = NEW.entity_id AND NOT el4ner.is_before(NEW, stored);
        RETURN NULL;
    END IF;
    IF TG_OP = 'UPDATE' AND el4ner.is_before(NEW, OLD) THEN
        RETURN NULL;
    END IF;
    body := el4ner.as_json(NEW.message);
    NEW.type := body ->> 'type';
    NEW.name := body ->> 'name';
    NEW.merged_into := body ->> 'merged_into';
    NEW.aliases := ARRAY(SELECT jsonb_array_elements_text(body -> 'aliases'));
    NEW.first_seen := body ->> 'first_seen';
    NEW.last_seen := body ->> 'last_seen';
    NEW.mentions := body -> 'mentions';
    RETURN NEW;
END
$$;

CREATE OR REPLACE TRIGGER read_entity BEFORE INSERT OR UPDATE ON el4ner.canonical_entities
    FOR EACH ROW EXECUTE FUNCTION el4ner.read_entity();

-- One row per entity and window of time.
CREATE OR REPLACE VIEW el4ner.entity_windows AS
    SELECT
        entity_id,
        type,
        name,
        (slot ->> 'start')::timestamptz AS start,
        (slot ->> 'mentions')::bigint AS mentions,
        (slot ->> 'documents')::bigint AS documents
    FROM el4ner.canonical_entities, jsonb_array_elements(el4ner.as_json(message) -> 'windows') AS slot
    WHERE merged_into IS NULL;

COMMIT;
