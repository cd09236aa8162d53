-- Tables for what el4ner finds. Run it as the tables' owner, in a database whose encoding is UTF8; it can be run again:
--
--     psql -v ON_ERROR_STOP=1 -f tables.sql
--
-- Kafka Connect writes el4ner.documents and nothing else. Triggers do the rest, in the same transaction.

BEGIN;
SET LOCAL client_min_messages = warning;

CREATE SCHEMA IF NOT EXISTS el4ner;

-- One row per document. The connector writes the first five columns; the others are read from the message.
CREATE TABLE IF NOT EXISTS el4ner.documents (
    document_id     text PRIMARY KEY,
    message         text NOT NULL,    -- as it stands on the topic: schemas/tagged-documents.v1.json
    kafka_partition integer NOT NULL,
    kafka_offset    bigint NOT NULL,
    kafka_timestamp bigint NOT NULL,  -- when the document was tagged, in milliseconds since 1970
    tagged_at       timestamptz GENERATED ALWAYS AS (to_timestamp(kafka_timestamp / 1000.0)) STORED,
    revision        bigint NOT NULL,
    status          text NOT NULL,    -- complete, partial, failed
    pool            text,
    text            text,             -- null: it could not be read
    metadata        jsonb,            -- the document's own
    error           jsonb             -- stage, code, message
);
CREATE INDEX IF NOT EXISTS documents_tagged_at ON el4ner.documents (tagged_at);

-- One row per entity in a document. Offsets count code points, as PostgreSQL's substr does:
-- substr(documents.text, start_offset + 1, end_offset - start_offset) = mentions.text
CREATE TABLE IF NOT EXISTS el4ner.mentions (
    document_id  text NOT NULL REFERENCES el4ner.documents ON DELETE CASCADE,
    number       integer NOT NULL,    -- its place among the document's entities, from 1
    start_offset integer NOT NULL,
    end_offset   integer NOT NULL,
    type         text NOT NULL,
    text         text NOT NULL,
    entity       text NOT NULL,       -- the same for all mentions of one entity: type:normalised text, cut at 500
    confidence   double precision NOT NULL,
    tagged_at    timestamptz NOT NULL,
    entity_id    text,                -- the name's, in the topic entities; null: it was tagged without [entities] enabled
    PRIMARY KEY (document_id, number)
);
ALTER TABLE el4ner.mentions ADD COLUMN IF NOT EXISTS entity_id text;  -- where the table is older
CREATE INDEX IF NOT EXISTS mentions_entity ON el4ner.mentions (entity, tagged_at);
CREATE INDEX IF NOT EXISTS mentions_entity_id ON el4ner.mentions (entity_id);
CREATE INDEX IF NOT EXISTS mentions_tagged_at ON el4ner.mentions (tagged_at);

-- A message as jsonb. JSON may have the character U+0000, and PostgreSQL's text may not: it becomes U+FFFD.
-- (A backslash that escapes nothing is behind an even number of others.)
CREATE OR REPLACE FUNCTION el4ner.as_json(message text) RETURNS jsonb
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT CASE
        WHEN strpos(message, '\u0000') = 0 THEN message
        ELSE regexp_replace(message, '(?<!\\)((?:\\\\)*)\\u0000', '\1\\ufffd', 'g')
    END::jsonb
$$;

-- A surface for comparison, as `normalised` of the topic entity-mentions: NFKC, case-folded, with single spaces.
CREATE OR REPLACE FUNCTION el4ner.normalised(surface text) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT btrim(regexp_replace(
        translate(replace(lower(normalize(surface, NFKC) COLLATE "und-x-icu"), 'ß', 'ss'), 'ς', 'σ'),
        '\s+', ' ', 'g'
    ))
$$;

-- Messages come again after a crash, from an earlier place: whether a row's message is before another's. Were the topic
-- made anew, its offsets would begin again, but time would not. Between partitions time alone tells: a document has
-- another one since the topic got more.
CREATE OR REPLACE FUNCTION el4ner.is_before(one el4ner.documents, other el4ner.documents) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE
        WHEN one.kafka_partition = other.kafka_partition
        THEN one.kafka_offset < other.kafka_offset AND one.kafka_timestamp <= other.kafka_timestamp
        ELSE one.kafka_timestamp < other.kafka_timestamp
    END
$$;

-- The mentions that a document's message has.
CREATE OR REPLACE FUNCTION el4ner.mentions_in(document el4ner.documents) RETURNS SETOF el4ner.mentions
LANGUAGE sql STABLE AS $$
    SELECT
        document.document_id,
        number::integer,
        (entity ->> 'start')::integer,
        (entity ->> 'end')::integer,
        entity ->> 'type',
        entity ->> 'text',
        -- An entry of an index has a third of a page at most, and an entity may be as long as a line of a log.
        left((entity ->> 'type') || ':' || el4ner.normalised(entity ->> 'text'), 500),
        (entity ->> 'confidence')::double precision,
        document.tagged_at,
        entity ->> 'entity_id'
    FROM jsonb_array_elements(el4ner.as_json(document.message) -> 'entities') WITH ORDINALITY AS list(entity, number)
$$;

-- The connector writes each message as a row. One without a value deletes the document that it names.
CREATE OR REPLACE FUNCTION el4ner.read_message() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
    body jsonb;
BEGIN
    IF NEW.message IS NULL THEN
        DELETE FROM el4ner.documents AS stored
        WHERE stored.document_id = NEW.document_id AND NOT el4ner.is_before(NEW, stored);
        RETURN NULL;
    END IF;
    body := el4ner.as_json(NEW.message);
    NEW.revision := body -> 'revision';
    IF TG_OP = 'UPDATE' AND (NEW.revision < OLD.revision OR el4ner.is_before(NEW, OLD)) THEN
        RETURN NULL;
    END IF;
    NEW.status := body ->> 'status';
    NEW.pool := body ->> 'pool';
    NEW.text := body ->> 'text';
    NEW.metadata := body -> 'metadata';
    NEW.error := nullif(body -> 'error', 'null');
    RETURN NEW;
END
$$;

-- With its owner's rights: whoever writes documents needs none on mentions.
CREATE OR REPLACE FUNCTION el4ner.write_mentions() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        DELETE FROM el4ner.mentions WHERE document_id = NEW.document_id;
    END IF;
    INSERT INTO el4ner.mentions SELECT * FROM el4ner.mentions_in(NEW);
    RETURN NULL;
END
$$;

CREATE OR REPLACE TRIGGER read_message BEFORE INSERT OR UPDATE ON el4ner.documents
    FOR EACH ROW EXECUTE FUNCTION el4ner.read_message();
CREATE OR REPLACE TRIGGER write_mentions AFTER INSERT ON el4ner.documents
    FOR EACH ROW EXECUTE FUNCTION el4ner.write_mentions();
CREATE OR REPLACE TRIGGER rewrite_mentions AFTER UPDATE ON el4ner.documents
    FOR EACH ROW
    WHEN ((OLD.message, OLD.kafka_timestamp) IS DISTINCT FROM (NEW.message, NEW.kafka_timestamp))
    EXECUTE FUNCTION el4ner.write_mentions();

-- One row per entity, by the mentions that there are now.
CREATE OR REPLACE VIEW el4ner.entities AS
    SELECT
        entity,
        type,
        mode() WITHIN GROUP (ORDER BY text) AS name,
        count(*) AS mentions,
        count(DISTINCT document_id) AS documents,
        min(tagged_at) AS first_seen,
        max(tagged_at) AS last_seen
    FROM el4ner.mentions
    GROUP BY entity, type;

COMMIT;
