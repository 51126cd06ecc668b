-- The log of events, cut into shards by tenant.

CREATE TABLE eventbroker.installation (
    singleton  boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    shards     integer NOT NULL CHECK (shards > 0),
    ack_key    bytea NOT NULL, -- signs ack ids, so that every broker over this database knows them
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- The newest position of each shard. An append holds its row to the end of the transaction: this lock makes positions
-- gapless and their order the order of commits. The free space keeps updates within the page.
CREATE TABLE eventbroker.shard_head (
    shard    integer PRIMARY KEY,
    position bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 10);

CREATE TABLE eventbroker.events (
    shard             integer NOT NULL,
    position          bigint NOT NULL,
    tenant_id         text NOT NULL,
    event_id          text NOT NULL,
    event_type        text NOT NULL,
    event_version     text NOT NULL,
    aggregate_type    text NOT NULL,
    aggregate_id      text NOT NULL,
    aggregate_version bigint NOT NULL,
    user_id           text NOT NULL,
    session_id        text NOT NULL,
    request_id        text NOT NULL,
    correlation_id    text NOT NULL,
    timestamp         timestamptz NOT NULL,
    form              smallint NOT NULL,       -- 1 JSON, 2 protobuf message, 3 binary
    content_type      text NOT NULL,           -- type URL of a message, media type of binary data
    content           bytea NOT NULL,          -- as it came: jsonb would reorder keys and refuse \u0000
    metadata          jsonb NOT NULL,
    recorded_at       timestamptz NOT NULL,
    CONSTRAINT events_position PRIMARY KEY (shard, position),
    CONSTRAINT events_id UNIQUE (tenant_id, event_id),
    CONSTRAINT events_version UNIQUE (tenant_id, aggregate_type, aggregate_id, aggregate_version)
);

-- Text as jsonb, or null where it is none that jsonb can hold.
CREATE FUNCTION eventbroker.try_jsonb(content bytea) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    RETURN convert_from(content, 'UTF8')::jsonb;
EXCEPTION WHEN data_exception OR statement_too_complex OR program_limit_exceeded THEN
    RETURN NULL;
END
$$;

-- The event store with the columns of the document that this broker was asked from. Data that jsonb cannot hold is
-- shown in base64, so that no event hides the others.
CREATE VIEW eventbroker.event_store AS
SELECT
    md5(tenant_id || ' ' || event_id)::uuid AS id,
    event_id,
    event_type,
    event_version,
    aggregate_id,
    aggregate_type,
    aggregate_version,
    tenant_id,
    nullif(user_id, '') AS user_id,
    nullif(session_id, '') AS session_id,
    nullif(request_id, '') AS request_id,
    nullif(correlation_id, '') AS correlation_id,
    coalesce(
        CASE WHEN form = 1 THEN eventbroker.try_jsonb(content) END,
        jsonb_build_object(
            CASE form WHEN 2 THEN '@type' ELSE '@content_type' END,
            CASE form WHEN 1 THEN 'application/json' ELSE content_type END,
            '@base64',
            translate(encode(content, 'base64'), E'\n', '')
        )
    ) AS event_data,
    metadata,
    timestamp,
    recorded_at AS created_at,
    shard,
    position
FROM eventbroker.events;
