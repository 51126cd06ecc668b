-- For services that share this database: events that are published, and deliveries that are settled, in a transaction
-- of the service's own. See docs/sql.md.

-- What is published and not yet in the log. A broker appends it and deletes it in one transaction. Numbers grow from
-- call to call, but are seen in the order of commits; so rows are taken lowest first, and no cursor passes any.
CREATE TABLE eventbroker.outbox (
    shard          integer NOT NULL,
    number         bigint GENERATED ALWAYS AS IDENTITY,
    tenant_id      text NOT NULL,
    event_id       text NOT NULL,
    event_type     text NOT NULL,
    event_version  text NOT NULL,
    aggregate_type text NOT NULL,
    aggregate_id   text NOT NULL,
    user_id        text NOT NULL,
    session_id     text NOT NULL,
    request_id     text NOT NULL,
    correlation_id text NOT NULL,
    timestamp      timestamptz NOT NULL,
    form           smallint NOT NULL, -- this and what follows as in eventbroker.events
    content_type   text NOT NULL,
    content        bytea NOT NULL,
    metadata       jsonb NOT NULL,
    published_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (shard, number)
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 1000);

-- What the log would not take, such as an event id that stands for another event. It stays until somebody deletes it.
CREATE TABLE eventbroker.outbox_refused (
    LIKE eventbroker.outbox,
    reason     text NOT NULL,
    refused_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (shard, number)
);

-- What domain/names.py says.
CREATE FUNCTION eventbroker.is_name(said text) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT said COLLATE "C" ~ '^[A-Za-z0-9._-]{1,128}$'
$$;

CREATE FUNCTION eventbroker.is_event_type(said text) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT length(said) <= 128 AND said COLLATE "C" ~ '^[a-z0-9_-]+(\.[a-z0-9_-]+){0,7}$'
$$;

CREATE FUNCTION eventbroker.is_id(said text) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT length(said) BETWEEN 1 AND 256 AND said COLLATE "C" !~ '[\u0001-\u001f\u007f-\u009f]'
$$;

-- The shard of a tenant's events, as domain/event.py has it: the CRC-32 of the name, modulo the number of shards.
CREATE FUNCTION eventbroker.shard_of(tenant_id text) RETURNS integer
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    shards integer := (SELECT installation.shards FROM eventbroker.installation);
    name bytea := convert_to(tenant_id, 'UTF8');
    crc bigint := 4294967295;
BEGIN
    IF shards = 1 THEN
        RETURN 0;
    END IF;
    FOR place IN 0 .. length(name) - 1 LOOP
        crc := crc # get_byte(name, place);
        FOR bit IN 1 .. 8 LOOP
            crc := (crc >> 1) # (3988292384 * (crc & 1));
        END LOOP;
    END LOOP;
    RETURN (crc # 4294967295) % shards;
END
$$;

-- The rules that an event breaks, each after its field: those of rpc/convert.py, in the same words.
CREATE FUNCTION eventbroker.faults(event eventbroker.outbox) RETURNS text[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    name_rule CONSTANT text := 'must be 1 to 128 characters of A-Z a-z 0-9 . _ -';
    id_rule CONSTANT text := 'must be 1 to 256 characters without control characters';
    most CONSTANT integer := 1048576;
    source text := coalesce(event.metadata ->> 'source', '');
    caused_by text := coalesce(event.metadata ->> 'caused_by', '');
    tags jsonb := coalesce(event.metadata -> 'tags', '[]');
    attributes jsonb := coalesce(event.metadata -> 'attributes', '{}');
    is_object boolean := jsonb_typeof(attributes) = 'object';
    names jsonb := CASE WHEN is_object THEN attributes ELSE '{}' END;
    size integer := octet_length(event.content) + octet_length(event.metadata::text) + octet_length(concat(
        event.tenant_id, event.event_id, event.event_type, event.event_version, event.aggregate_type,
        event.aggregate_id, event.user_id, event.session_id, event.request_id, event.correlation_id,
        event.content_type
    ));
BEGIN
    RETURN ARRAY(
        SELECT rule.field || ' ' || rule.says
        FROM (
            VALUES
                ('tenant_id', NOT eventbroker.is_name(event.tenant_id), name_rule),
                ('tenant_id', event.tenant_id = '_broker', 'is reserved'),
                ('event_id', NOT eventbroker.is_id(event.event_id), id_rule),
                (
                    'event_type', NOT eventbroker.is_event_type(event.event_type),
                    'must be 1 to 8 levels between dots, of a-z 0-9 _ -, at most 128 characters'
                ),
                ('event_version', NOT eventbroker.is_name(event.event_version), name_rule),
                ('aggregate_type', NOT eventbroker.is_name(event.aggregate_type), name_rule),
                ('aggregate_id', NOT eventbroker.is_id(event.aggregate_id), id_rule),
                ('user_id', event.user_id <> '' AND NOT eventbroker.is_id(event.user_id), id_rule),
                ('session_id', event.session_id <> '' AND NOT eventbroker.is_id(event.session_id), id_rule),
                ('request_id', event.request_id <> '' AND NOT eventbroker.is_id(event.request_id), id_rule),
                ('correlation_id', event.correlation_id <> '' AND NOT eventbroker.is_id(event.correlation_id), id_rule),
                (
                    'occurred_at',
                    NOT event.timestamp BETWEEN '0001-01-01 00:00:01+00' AND '9999-12-31 23:59:58.999999+00',
                    'must be from 0001-01-01T00:00:01Z to 9999-12-31T23:59:58Z'
                ),
                (
                    'type_url',
                    event.form = 2 AND (event.content_type NOT LIKE '%/%' OR NOT eventbroker.is_id(event.content_type)),
                    'must name a type, such as "type.googleapis.com/eventbroker.events.v1.UserCreated"'
                ),
                (
                    'content_type',
                    event.form = 3 AND event.content IS NOT NULL AND NOT eventbroker.is_id(event.content_type),
                    id_rule
                ),
                ('source', source <> '' AND NOT eventbroker.is_id(source), id_rule),
                ('caused_by', caused_by <> '' AND NOT eventbroker.is_id(caused_by), id_rule),
                ('entity_version', (event.metadata ->> 'entity_version')::bigint < 0, 'must not be negative'),
                ('tags', jsonb_array_length(tags) > 64, 'must be at most 64'),
                ('attributes', NOT is_object, 'must be an object'),
                ('attributes', (SELECT count(*) FROM jsonb_object_keys(names)) > 64, 'must be at most 64'),
                (
                    'attributes',
                    (SELECT bool_or(NOT eventbroker.is_name(name)) FROM jsonb_object_keys(names) AS name),
                    'has a key that ' || name_rule
                ),
                ('event', size > most, format('must be at most %s bytes, not %s', most, size))
        ) AS rule(field, broken, says)
        WHERE rule.broken
        UNION ALL
        SELECT format('tags[%s] %s', tag.number, id_rule)
        FROM jsonb_array_elements(tags) WITH ORDINALITY AS tag(said, number)
        WHERE tag.number <= 64
            AND (jsonb_typeof(tag.said) = 'string' AND eventbroker.is_id(tag.said #>> '{}')) IS NOT TRUE
        UNION ALL
        SELECT format('attributes["%s"] must be text of at most 4096 characters', attribute.key)
        FROM jsonb_each(names) AS attribute
        WHERE eventbroker.is_name(attribute.key)
            AND (jsonb_typeof(attribute.value) <> 'string' OR length(attribute.value #>> '{}') > 4096)
    );
END
$$;

-- Publish an event when this transaction commits. Answers its id, a new one unless it is given. The data is `data`, or
-- `content`: bytes of a media type, or a protobuf message of the type that `type_url` names. NULL is as good as left
-- out. Raises EB001 with each field that breaks a rule.
CREATE FUNCTION eventbroker.publish(
    tenant_id      text,
    event_type     text,
    aggregate_type text,
    aggregate_id   text,
    data           jsonb DEFAULT NULL,
    content        bytea DEFAULT NULL,
    content_type   text DEFAULT NULL,
    type_url       text DEFAULT NULL,
    event_id       text DEFAULT NULL,
    event_version  text DEFAULT NULL,        -- v1.0
    occurred_at    timestamptz DEFAULT NULL, -- now
    user_id        text DEFAULT NULL,
    session_id     text DEFAULT NULL,
    request_id     text DEFAULT NULL,
    correlation_id text DEFAULT NULL,
    source         text DEFAULT NULL,
    caused_by      text DEFAULT NULL,
    entity_version bigint DEFAULT NULL,
    tags           text[] DEFAULT NULL,
    attributes     jsonb DEFAULT NULL        -- an object of texts
) RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    event eventbroker.outbox;
    faults text[];
BEGIN
    event.tenant_id := coalesce(tenant_id, '');
    event.event_id := coalesce(event_id, gen_random_uuid()::text);
    event.event_type := coalesce(event_type, '');
    event.event_version := coalesce(event_version, 'v1.0');
    event.aggregate_type := coalesce(aggregate_type, '');
    event.aggregate_id := coalesce(aggregate_id, '');
    event.user_id := coalesce(user_id, '');
    event.session_id := coalesce(session_id, '');
    event.request_id := coalesce(request_id, '');
    event.correlation_id := coalesce(correlation_id, '');
    event.timestamp := coalesce(occurred_at, clock_timestamp());
    event.form := CASE WHEN data IS NOT NULL THEN 1 WHEN type_url IS NOT NULL THEN 2 ELSE 3 END;
    event.content_type := CASE event.form WHEN 1 THEN '' WHEN 2 THEN type_url ELSE coalesce(content_type, '') END;
    event.content := CASE event.form WHEN 1 THEN convert_to(data::text, 'UTF8') ELSE content END;
    event.metadata := (
        SELECT coalesce(jsonb_object_agg(said.name, said.value), '{}')
        FROM (
            VALUES
                ('source', to_jsonb(nullif(source, ''))),
                ('caused_by', to_jsonb(nullif(caused_by, ''))),
                ('entity_version', to_jsonb(nullif(entity_version, 0))),
                ('tags', to_jsonb(nullif(tags, '{}'))),
                ('attributes', nullif(attributes, '{}'))
        ) AS said(name, value)
        WHERE said.value IS NOT NULL
    );
    faults := eventbroker.faults(event) || ARRAY(
        SELECT rule.says
        FROM (
            VALUES
                (event.content IS NULL, 'data is required: one of data, content'),
                (data IS NOT NULL AND content IS NOT NULL, 'content cannot be used with data'),
                (content IS NULL AND content_type IS NOT NULL, 'content_type is that of content'),
                (content IS NULL AND type_url IS NOT NULL, 'type_url is that of content'),
                (content_type IS NOT NULL AND type_url IS NOT NULL, 'type_url cannot be used with content_type'),
                (
                    jsonb_path_exists(data, 'strict $.**{64} ? (@.type() == "object" || @.type() == "array")'),
                    'data must nest at most 64 levels'
                ),
                (
                    jsonb_path_exists(
                        data, 'strict $.** ? (@ > 1.7976931348623157e308 || @ < -1.7976931348623157e308)'
                    ),
                    'data has a number beyond double precision'
                )
        ) AS rule(broken, says)
        WHERE rule.broken
    );
    IF cardinality(faults) > 0 THEN
        RAISE EXCEPTION USING
            ERRCODE = 'EB001',
            MESSAGE = 'the event breaks rules: ' || array_to_string(faults, '; '),
            DETAIL = array_to_string(faults, E'\n'),
            HINT = 'Nothing was published. The rules are in docs/sql.md.';
    END IF;
    event.shard := eventbroker.shard_of(event.tenant_id);
    INSERT INTO eventbroker.outbox (
        shard, tenant_id, event_id, event_type, event_version, aggregate_type, aggregate_id, user_id, session_id,
        request_id, correlation_id, timestamp, form, content_type, content, metadata
    )
    VALUES (
        event.shard, event.tenant_id, event.event_id, event.event_type, event.event_version, event.aggregate_type,
        event.aggregate_id, event.user_id, event.session_id, event.request_id, event.correlation_id, event.timestamp,
        event.form, event.content_type, event.content, event.metadata
    );
    PERFORM pg_notify('eventbroker_outbox', '');
    RETURN event.event_id;
END
$$;

-- Whoever may publish is told so by a GRANT.
REVOKE ALL ON FUNCTION eventbroker.publish FROM PUBLIC;
REVOKE ALL ON FUNCTION eventbroker.faults FROM PUBLIC;
