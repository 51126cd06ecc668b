-- name: append
-- One statement is one round trip and one transaction. The UPDATE takes the shard's lock and sees the newest head also
-- after waiting for it. The look-up of a version sees what was committed before this statement began, so it is a guess,
-- which the unique key judges. Columns of text come joined, since the driver takes ten times as long for an array; a
-- single empty text is an empty array then, hence the coalesce.
WITH item AS (
    SELECT *
    FROM unnest(
        string_to_array($2, E'\x1f'), string_to_array($3, E'\x1f'), string_to_array($4, E'\x1f'),
        string_to_array($5, E'\x1f'), string_to_array($6, E'\x1f'), string_to_array($7, E'\x1f'),
        string_to_array($8, E'\x1f'), string_to_array($9, E'\x1f'), string_to_array($10, E'\x1f'),
        string_to_array($11, E'\x1f'), $12::timestamptz[], string_to_array($13, E'\x1f')::smallint[],
        string_to_array($14, E'\x1f'), $15::bytea[], string_to_array($16, E'\x1f')::jsonb[],
        string_to_array($17, E'\x1f', '')::bigint[], string_to_array($18, E'\x1f')::bigint[]
    ) WITH ORDINALITY AS item(
        tenant_id, event_id, event_type, event_version, aggregate_type, aggregate_id, user_id, session_id, request_id,
        correlation_id, timestamp, form, content_type, content, metadata, base, step, number
    )
), head AS (
    UPDATE eventbroker.shard_head
    SET position = position + cardinality($15), recorded_at = greatest(recorded_at, clock_timestamp())
    WHERE shard = $1
    RETURNING position - cardinality($15) AS position, recorded_at AS at
), stored AS (
    INSERT INTO eventbroker.events (
        shard, position, tenant_id, event_id, event_type, event_version, aggregate_type, aggregate_id,
        aggregate_version, user_id, session_id, request_id, correlation_id, timestamp, form, content_type, content,
        metadata, recorded_at
    )
    SELECT
        $1, head.position + item.number, item.tenant_id, item.event_id, item.event_type, item.event_version,
        item.aggregate_type, item.aggregate_id,
        item.step + coalesce(item.base, (
            SELECT e.aggregate_version
            FROM eventbroker.events e
            WHERE e.tenant_id = item.tenant_id
                AND e.aggregate_type = item.aggregate_type
                AND e.aggregate_id = item.aggregate_id
            ORDER BY e.aggregate_version DESC
            LIMIT 1
        ), 0),
        coalesce(item.user_id, ''), coalesce(item.session_id, ''), coalesce(item.request_id, ''),
        coalesce(item.correlation_id, ''), item.timestamp, item.form, coalesce(item.content_type, ''), item.content,
        item.metadata, head.at
    FROM item, head
    RETURNING position, aggregate_version
)
SELECT
    (SELECT position + 1 FROM head) AS first,
    (SELECT at FROM head) AS recorded_at,
    (SELECT array_agg(aggregate_version ORDER BY position) FROM stored) AS versions;

-- name: lock_shard
SELECT position FROM eventbroker.shard_head WHERE shard = $1 FOR UPDATE;

-- name: events_by_id
-- A plan that was made while the table was empty is kept, and takes all indexes that begin with a tenant for equals. An id
-- is a range here, in order, since only its own index has it so.
SELECT {event}
FROM unnest($1::text[], $2::text[]) AS wanted(tenant, id)
CROSS JOIN LATERAL (
    SELECT *
    FROM eventbroker.events
    WHERE tenant_id = wanted.tenant AND event_id BETWEEN wanted.id AND wanted.id
    ORDER BY event_id
    LIMIT 1
) AS event;

-- name: versions
SELECT wanted.tenant_id, wanted.aggregate_type, wanted.aggregate_id, latest.aggregate_version
FROM unnest($1::text[], $2::text[], $3::text[]) AS wanted(tenant_id, aggregate_type, aggregate_id)
CROSS JOIN LATERAL (
    SELECT e.aggregate_version
    FROM eventbroker.events e
    WHERE e.tenant_id = wanted.tenant_id
        AND e.aggregate_type = wanted.aggregate_type
        AND e.aggregate_id = wanted.aggregate_id
    ORDER BY e.aggregate_version DESC
    LIMIT 1
) AS latest;

-- name: head
SELECT position FROM eventbroker.shard_head WHERE shard = $1;

-- name: read
SELECT {event}
FROM (
    SELECT *, sum(octet_length(content)) OVER (ORDER BY position) - octet_length(content) AS bytes_before
    FROM eventbroker.events
    WHERE shard = $1 AND position > $2 AND position <= $3
) AS page
WHERE bytes_before < $4
ORDER BY position;

-- name: wanted_event
-- A condition rather than a statement: what a group wants of a range, and is not settled, does not wait for another
-- attempt, and was not given up since the last seek. It takes $1 to $3 and $5 to $11 of each.
shard = $1 AND position > $2 AND position <= $3
    AND (tenant_id = $5::text OR ($5 = '*' AND tenant_id <> '_broker'))
    AND (
        event_type = ANY ($6::text[])
        OR EXISTS (SELECT FROM unnest($7::text[]) AS prefix WHERE starts_with(event_type, prefix))
    )
    AND eventbroker.meets(aggregate_type, metadata, $9::text[], $10::text[], $11::text[])
    AND NOT EXISTS (
        SELECT FROM eventbroker.group_shards AS place
        WHERE place.tenant_id = $5 AND place.name = $8 AND place.shard = $1 AND place.settled @> event.position
    )
    AND NOT EXISTS (
        SELECT FROM eventbroker.retries AS retry
        WHERE retry.tenant_id = $5 AND retry.name = $8 AND retry.shard = $1 AND retry.position = event.position
    )
    AND NOT EXISTS (
        SELECT
        FROM eventbroker.dead_letters AS dead
        JOIN eventbroker.group_shards AS place USING (tenant_id, name, shard)
        WHERE dead.tenant_id = $5 AND dead.name = $8 AND dead.shard = $1 AND dead.position = event.position
            AND dead.dead_at > place.sought_at
    )

-- name: places
SELECT position, tenant_id, aggregate_type, aggregate_id
FROM eventbroker.events AS event
WHERE {wanted_event}
ORDER BY position
LIMIT $4;

-- name: read_for
SELECT {event}
FROM (
    SELECT *, sum(octet_length(content)) OVER (ORDER BY position) - octet_length(content) AS bytes_before
    FROM eventbroker.events AS event
    WHERE {wanted_event}
) AS page
WHERE bytes_before < $4
ORDER BY position
LIMIT $12;

-- name: record_time
SELECT recorded_at FROM eventbroker.events WHERE shard = $1 AND position = $2;

-- name: position_before
-- Positions have no gap and times rise with them, so the seam is found by halves: an index on the time is not needed.
WITH RECURSIVE half(low, high) AS (
    SELECT 0::bigint, position + 1 FROM eventbroker.shard_head WHERE shard = $1
    UNION ALL
    SELECT
        CASE WHEN e.recorded_at < $2 THEN e.position ELSE half.low END,
        CASE WHEN e.recorded_at < $2 THEN half.high ELSE e.position END
    FROM half
    CROSS JOIN LATERAL (
        SELECT position, recorded_at
        FROM eventbroker.events
        WHERE shard = $1 AND position BETWEEN (half.low + half.high) / 2 AND (half.low + half.high) / 2
        ORDER BY position
        LIMIT 1
    ) AS e
    WHERE half.high - half.low > 1
)
SELECT max(low) FROM half;

-- name: count_for
SELECT count(*)
FROM eventbroker.events
WHERE shard = $1 AND position > $2 AND position <= $3
    AND (tenant_id = $4::text OR ($4 = '*' AND tenant_id <> '_broker'))
    AND (
        event_type = ANY ($5::text[])
        OR EXISTS (SELECT FROM unnest($6::text[]) AS prefix WHERE starts_with(event_type, prefix))
    )
    AND eventbroker.meets(aggregate_type, metadata, $7::text[], $8::text[], $9::text[]);

-- name: at
SELECT {event} FROM eventbroker.events WHERE shard = $1 AND position = ANY ($2::bigint[]);
