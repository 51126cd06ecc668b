-- Every statement of the server but the migrations. Each begins with its name.

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
    SET position = position + cardinality($15)
    WHERE shard = $1
    RETURNING position - cardinality($15) AS position, clock_timestamp() AS at
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
SELECT {event}
FROM unnest($1::text[], $2::text[]) AS wanted(tenant_id, event_id)
JOIN eventbroker.events USING (tenant_id, event_id);

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

-- name: read_for
SELECT {event}
FROM (
    SELECT *, sum(octet_length(content)) OVER (ORDER BY position) - octet_length(content) AS bytes_before
    FROM eventbroker.events
    WHERE shard = $1 AND position > $2 AND position <= $3
        AND ($5::text = '*' OR tenant_id = $5)
        AND (
            event_type = ANY ($6::text[])
            OR EXISTS (SELECT FROM unnest($7::text[]) AS prefix WHERE starts_with(event_type, prefix))
        )
) AS page
WHERE bytes_before < $4
ORDER BY position;

-- name: record_time
SELECT recorded_at FROM eventbroker.events WHERE shard = $1 AND position = $2;

-- name: insert_group
INSERT INTO eventbroker.groups (tenant_id, name, event_types, ack_deadline)
VALUES ($1, $2, $3, $4)
ON CONFLICT DO NOTHING
RETURNING true;

-- name: insert_memberships
INSERT INTO eventbroker.group_shards (tenant_id, name, shard, checkpoint)
SELECT $1, $2, shard, CASE WHEN $3 THEN position ELSE 0 END
FROM eventbroker.shard_head;

-- name: group
SELECT * FROM eventbroker.groups WHERE tenant_id = $1 AND name = $2;

-- name: membership
SELECT checkpoint, generation, replay_to FROM eventbroker.group_shards WHERE tenant_id = $1 AND name = $2 AND shard = $3;

-- name: next_generation
UPDATE eventbroker.group_shards
SET generation = generation + 1, updated_at = clock_timestamp()
WHERE tenant_id = $1 AND name = $2 AND shard = $3 AND generation = $4;

-- name: save_checkpoint
UPDATE eventbroker.group_shards
SET checkpoint = greatest(checkpoint, $5), updated_at = clock_timestamp()
WHERE tenant_id = $1 AND name = $2 AND shard = $3 AND generation = $4
RETURNING checkpoint;

-- name: position_before
-- Positions have no gap and times rise with them, so the seam is found by halves: an index on the time is not needed.
WITH RECURSIVE half(low, high) AS (
    SELECT 0::bigint, position + 1 FROM eventbroker.shard_head WHERE shard = $1
    UNION ALL
    SELECT
        CASE WHEN e.recorded_at < $2 THEN e.position ELSE half.low END,
        CASE WHEN e.recorded_at < $2 THEN half.high ELSE e.position END
    FROM half
    JOIN eventbroker.events e ON e.shard = $1 AND e.position = (half.low + half.high) / 2
    WHERE half.high - half.low > 1
)
SELECT max(low) FROM half;

-- name: count_for
SELECT count(*)
FROM eventbroker.events
WHERE shard = $1 AND position > $2 AND position <= $3
    AND ($4::text = '*' OR tenant_id = $4)
    AND (
        event_type = ANY ($5::text[])
        OR EXISTS (SELECT FROM unnest($6::text[]) AS prefix WHERE starts_with(event_type, prefix))
    );

-- name: create_group
INSERT INTO eventbroker.groups (
    tenant_id, name, event_types, ack_deadline, backoff_initial, backoff_multiplier, backoff_max, max_attempts,
    dead_letter_retention
)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
ON CONFLICT DO NOTHING
RETURNING true;

-- name: create_memberships
INSERT INTO eventbroker.group_shards (tenant_id, name, shard, checkpoint)
SELECT $1, $2, head.shard, coalesce(start.checkpoint, 0)
FROM eventbroker.shard_head head
LEFT JOIN unnest($3::integer[], $4::bigint[]) AS start(shard, checkpoint) USING (shard);

-- name: list_groups
SELECT * FROM eventbroker.groups
WHERE tenant_id = $1 AND name COLLATE "C" > $2
ORDER BY name COLLATE "C"
LIMIT $3;

-- name: leftovers
SELECT
    (SELECT count(*) FROM eventbroker.retries WHERE tenant_id = $1 AND name = $2),
    (
        SELECT min(e.recorded_at)
        FROM eventbroker.retries r
        JOIN eventbroker.events e USING (shard, position)
        WHERE r.tenant_id = $1 AND r.name = $2
    ),
    (SELECT count(*) FROM eventbroker.dead_letters WHERE tenant_id = $1 AND name = $2);

-- name: update_group
UPDATE eventbroker.groups
SET event_types = coalesce($3, event_types),
    ack_deadline = coalesce($4, ack_deadline),
    backoff_initial = coalesce($5, backoff_initial),
    backoff_multiplier = coalesce($6, backoff_multiplier),
    backoff_max = coalesce($7, backoff_max),
    max_attempts = coalesce($8, max_attempts),
    dead_letter_retention = coalesce($9, dead_letter_retention),
    paused = coalesce($10, paused),
    updated_at = clock_timestamp()
WHERE tenant_id = $1 AND name = $2
RETURNING *;

-- name: forget_unwanted_retries
DELETE FROM eventbroker.retries r
USING eventbroker.events e
WHERE r.tenant_id = $1 AND r.name = $2 AND e.shard = r.shard AND e.position = r.position
    AND NOT (
        e.event_type = ANY ($3::text[])
        OR EXISTS (SELECT FROM unnest($4::text[]) AS prefix WHERE starts_with(e.event_type, prefix))
    );

-- name: seek
-- Going back, what the group may have been given so far comes again: up to the head, as nothing tells it more closely.
UPDATE eventbroker.group_shards g
SET generation = g.generation + 1,
    checkpoint = $4,
    sought_at = clock_timestamp(),
    replay_to = CASE WHEN $4 < g.checkpoint THEN greatest(g.replay_to, head.position) ELSE g.replay_to END,
    updated_at = clock_timestamp()
FROM eventbroker.shard_head head
WHERE g.tenant_id = $1 AND g.name = $2 AND g.shard = $3 AND head.shard = $3
RETURNING true;

-- name: forget_retries
DELETE FROM eventbroker.retries WHERE tenant_id = $1 AND name = $2 AND shard = $3;

-- name: delete_group
DELETE FROM eventbroker.groups WHERE tenant_id = $1 AND name = $2 RETURNING true;

-- name: installation
SELECT shards, ack_key FROM eventbroker.installation;

-- name: install
INSERT INTO eventbroker.installation (shards, ack_key) VALUES ($1, $2) ON CONFLICT DO NOTHING;

-- name: install_shards
INSERT INTO eventbroker.shard_head (shard)
SELECT generate_series(0, shards - 1) FROM eventbroker.installation
ON CONFLICT DO NOTHING;
