-- name: transfer_session
-- For the transaction: these statements look at whole tables. The sizes of what they read are known to the planner.
SET LOCAL enable_seqscan = on;
SET LOCAL plan_cache_mode = force_custom_plan;
SET LOCAL TimeZone = 'UTC';
SET LOCAL idle_in_transaction_session_timeout = 0;

-- name: schema_number
SELECT max(number) FROM eventbroker.migrations;

-- name: heads
SELECT position FROM eventbroker.shard_head ORDER BY shard;

-- name: lock_shards
SELECT position FROM eventbroker.shard_head ORDER BY shard FOR UPDATE;

-- name: has_tenant
SELECT EXISTS (SELECT FROM eventbroker.events WHERE tenant_id = $1)
    OR EXISTS (SELECT FROM eventbroker.groups WHERE tenant_id = $1);

-- name: export_groups
SELECT json_build_object(
    'group', row_to_json(g),
    'places', array_to_json(ARRAY(
        SELECT row_to_json(place)
        FROM eventbroker.group_shards AS place
        WHERE place.tenant_id = g.tenant_id AND place.name = g.name
        ORDER BY place.shard
    ))
)::text
FROM eventbroker.groups AS g
WHERE $1 = '' OR tenant_id = $1
ORDER BY tenant_id COLLATE "C", name COLLATE "C";

-- name: export_retries
SELECT json_build_object('retry', row_to_json(retry))::text
FROM eventbroker.retries AS retry
WHERE $1 = '' OR tenant_id = $1
ORDER BY tenant_id COLLATE "C", name COLLATE "C", shard, position;

-- name: export_dead_letters
SELECT json_build_object('dead_letter', row_to_json(dead))::text
FROM eventbroker.dead_letters AS dead
WHERE $1 = '' OR tenant_id = $1
ORDER BY tenant_id COLLATE "C", name COLLATE "C", shard, position;

-- name: export_events
SELECT {event}
FROM (
    SELECT *, sum(octet_length(content)) OVER (ORDER BY position) - octet_length(content) AS bytes_before
    FROM eventbroker.events
    WHERE shard = $1 AND position > $2 AND position <= $3 AND ($5 = '' OR tenant_id = $5)
) AS page
WHERE bytes_before < $4
ORDER BY position;

-- name: export_outbox
SELECT count(*) FROM eventbroker.outbox WHERE $1 = '' OR tenant_id = $1;

-- name: make_staging
-- What comes is put here first, until all of it was read: `number` counts the events.
CREATE TEMPORARY TABLE staged_events (LIKE eventbroker.events, number bigint NOT NULL) ON COMMIT DROP;
CREATE TEMPORARY TABLE staged_groups (LIKE eventbroker.groups) ON COMMIT DROP;
CREATE TEMPORARY TABLE staged_places (LIKE eventbroker.group_shards) ON COMMIT DROP;
CREATE TEMPORARY TABLE staged_retries (LIKE eventbroker.retries) ON COMMIT DROP;
CREATE TEMPORARY TABLE staged_dead_letters (LIKE eventbroker.dead_letters) ON COMMIT DROP;

-- name: stage_groups
WITH item AS (
    SELECT value FROM unnest($1::text[]::jsonb[]) AS value
), places AS (
    INSERT INTO staged_places
    SELECT place.*
    FROM item
    CROSS JOIN jsonb_array_elements(item.value -> 'places') AS said
    CROSS JOIN jsonb_populate_record(NULL::eventbroker.group_shards, said) AS place
)
INSERT INTO staged_groups
SELECT g.* FROM item CROSS JOIN jsonb_populate_record(NULL::eventbroker.groups, item.value -> 'group') AS g;

-- name: stage_retries
INSERT INTO staged_retries
SELECT retry.*
FROM unnest($1::text[]::jsonb[]) AS value
CROSS JOIN jsonb_populate_record(NULL::eventbroker.retries, value -> 'retry') AS retry;

-- name: stage_dead_letters
INSERT INTO staged_dead_letters
SELECT dead.*
FROM unnest($1::text[]::jsonb[]) AS value
CROSS JOIN jsonb_populate_record(NULL::eventbroker.dead_letters, value -> 'dead_letter') AS dead;

-- name: analyze_staging
CREATE INDEX ON staged_events (position);
ANALYZE staged_events;
ANALYZE staged_groups;
ANALYZE staged_places;
ANALYZE staged_retries;
ANALYZE staged_dead_letters;

-- name: has_groups
SELECT EXISTS (SELECT FROM eventbroker.groups);

-- name: restore
-- Everything is put as it was. The groups of an increment are those of its end.
ALTER TABLE staged_events DROP COLUMN number;
INSERT INTO eventbroker.events SELECT * FROM staged_events;
DELETE FROM eventbroker.groups;
INSERT INTO eventbroker.groups SELECT * FROM staged_groups;
INSERT INTO eventbroker.group_shards SELECT * FROM staged_places;
INSERT INTO eventbroker.retries SELECT * FROM staged_retries;
INSERT INTO eventbroker.dead_letters SELECT * FROM staged_dead_letters;

-- name: set_heads
UPDATE eventbroker.shard_head AS head
SET position = item.position,
    recorded_at = coalesce((
        SELECT recorded_at FROM eventbroker.events AS e WHERE e.shard = head.shard AND e.position = item.position
    ), head.recorded_at)
FROM unnest($1::bigint[]) WITH ORDINALITY AS item(position, number)
WHERE head.shard = item.number - 1;

-- name: restore_fault
-- Something that no broker would have left so, or null.
SELECT CASE
    WHEN (SELECT count(*) FROM eventbroker.groups) * (SELECT count(*) FROM eventbroker.shard_head)
            <> (SELECT count(*) FROM eventbroker.group_shards)
        OR EXISTS (
            SELECT
            FROM eventbroker.group_shards AS place
            LEFT JOIN eventbroker.shard_head AS head USING (shard)
            WHERE head.shard IS NULL OR place.checkpoint NOT BETWEEN 0 AND head.position
        )
        THEN 'a group lacks a place, or is beyond the last event'
    WHEN EXISTS (
            SELECT
            FROM eventbroker.retries
            LEFT JOIN eventbroker.events AS event USING (shard, position)
            WHERE event.event_id IS NULL
        )
        OR EXISTS (
            SELECT
            FROM eventbroker.dead_letters
            LEFT JOIN eventbroker.events AS event USING (shard, position)
            WHERE event.event_id IS NULL
        )
        THEN 'a retry or a dead letter has no event'
END;

-- name: move_events
INSERT INTO eventbroker.events (
    shard, position, tenant_id, event_id, event_type, event_version, aggregate_type, aggregate_id, aggregate_version,
    user_id, session_id, request_id, correlation_id, timestamp, form, content_type, content, metadata, recorded_at
)
SELECT
    $1, $2 + number, tenant_id, event_id, event_type, event_version, aggregate_type, aggregate_id, aggregate_version,
    user_id, session_id, request_id, correlation_id, timestamp, form, content_type, content, metadata,
    (SELECT recorded_at FROM eventbroker.shard_head WHERE shard = $1)
FROM staged_events;

-- name: move_head
UPDATE eventbroker.shard_head
SET position = position + (SELECT count(*) FROM staged_events), recorded_at = greatest(recorded_at, clock_timestamp())
WHERE shard = $1;

-- name: move_groups
INSERT INTO eventbroker.groups SELECT * FROM staged_groups;

-- name: move_places
-- A place between two of the tenant's events is between the same two here. In the other shards the group has nothing to
-- get, and stands at their beginning, as a group that is made here. Generations begin with the time, as above.
INSERT INTO eventbroker.group_shards (
    tenant_id, name, shard, checkpoint, settled, replay_to, paced_to, pace, sought_at, generation
)
SELECT
    place.tenant_id, place.name, head.shard, new.checkpoint, new.settled, new.replay_to, new.paced_to, place.pace,
    place.sought_at, extract(epoch FROM clock_timestamp()) * 1000
FROM staged_places AS place
CROSS JOIN eventbroker.shard_head AS head
CROSS JOIN LATERAL (
    SELECT
        coalesce(max($2 + number) FILTER (WHERE which = 1), CASE WHEN head.shard = $1 THEN $2 ELSE 0 END) AS checkpoint,
        coalesce(max($2 + number) FILTER (WHERE which = 2), 0) AS replay_to,
        coalesce(max($2 + number) FILTER (WHERE which = 3), 0) AS paced_to,
        coalesce((
            SELECT range_agg(int8range($2 + event.number, $2 + event.number, '[]'))
            FROM staged_events AS event
            WHERE head.shard = $1 AND place.settled @> event.position
        ), '{}') AS settled
    FROM unnest(ARRAY[place.checkpoint, place.replay_to, place.paced_to]) WITH ORDINALITY AS old(position, which)
    CROSS JOIN LATERAL (
        SELECT event.number
        FROM staged_events AS event
        WHERE event.position <= old.position
        ORDER BY event.position DESC
        LIMIT 1
    ) AS before
    WHERE head.shard = $1
) AS new
WHERE place.shard = $3;

-- name: move_retries
-- None of them is in a stream here.
INSERT INTO eventbroker.retries (
    tenant_id, name, shard, position, event_tenant_id, aggregate_type, aggregate_id, attempts, due_at, queued, delivery,
    history, dropped
)
SELECT
    retry.tenant_id, retry.name, $1, $2 + event.number, event.tenant_id, event.aggregate_type, event.aggregate_id,
    retry.attempts, retry.due_at, 0, retry.delivery, retry.history, retry.dropped
FROM staged_retries AS retry
JOIN staged_events AS event USING (shard, position);

-- name: move_dead_letters
INSERT INTO eventbroker.dead_letters (
    tenant_id, name, shard, position, event_tenant_id, event_id, event_type, aggregate_type, aggregate_id, attempts,
    reason, rejected, delivery, history, dead_at
)
SELECT
    dead.tenant_id, dead.name, $1, $2 + event.number, event.tenant_id, event.event_id, event.event_type,
    event.aggregate_type, event.aggregate_id, dead.attempts, dead.reason, dead.rejected, dead.delivery, dead.history,
    dead.dead_at
FROM staged_dead_letters AS dead
JOIN staged_events AS event USING (shard, position);

-- name: move_fault
SELECT CASE
    WHEN (SELECT count(*) FROM staged_places WHERE shard = $2) <> (SELECT count(*) FROM staged_groups)
        THEN 'a group lacks its place'
    WHEN (SELECT count(*) FROM eventbroker.retries WHERE tenant_id = $1) <> (SELECT count(*) FROM staged_retries)
        OR (SELECT count(*) FROM eventbroker.dead_letters WHERE tenant_id = $1)
            <> (SELECT count(*) FROM staged_dead_letters)
        THEN 'a retry or a dead letter has no event'
END;
