-- name: insert_group
INSERT INTO eventbroker.groups (tenant_id, name, event_types, ack_deadline)
VALUES ($1, $2, $3, $4)
ON CONFLICT DO NOTHING
RETURNING true;

-- name: insert_memberships
-- Generations begin with the time, so that a group never goes on where one of its name that was deleted had come to.
INSERT INTO eventbroker.group_shards (tenant_id, name, shard, checkpoint, generation)
SELECT $1, $2, shard, CASE WHEN $3 THEN position ELSE 0 END, extract(epoch FROM clock_timestamp()) * 1000
FROM eventbroker.shard_head;

-- name: group
SELECT * FROM eventbroker.groups WHERE tenant_id = $1 AND name = $2;

-- name: membership
SELECT checkpoint, generation, replay_to, pace, paced_to
FROM eventbroker.group_shards
WHERE tenant_id = $1 AND name = $2 AND shard = $3;

-- name: is_settled
SELECT settled @> $4::bigint FROM eventbroker.group_shards WHERE tenant_id = $1 AND name = $2 AND shard = $3;

-- name: next_generation
UPDATE eventbroker.group_shards
SET generation = $4 + 1, updated_at = clock_timestamp()
WHERE tenant_id = $1 AND name = $2 AND shard = $3 AND generation <= $4
RETURNING checkpoint, generation, replay_to, pace, paced_to;

-- name: save_checkpoint
UPDATE eventbroker.group_shards
SET checkpoint = greatest(checkpoint, $5),
    settled = int8multirange(int8range(greatest(checkpoint, $5) + 1, NULL)) * (settled + coalesce(
        (SELECT range_agg(int8range(first, after)) FROM unnest($6::bigint[], $7::bigint[]) AS told(first, after)), '{}'
    )),
    updated_at = clock_timestamp()
WHERE tenant_id = $1 AND name = $2 AND shard = $3 AND generation = $4
RETURNING checkpoint, settled;

-- name: create_group
INSERT INTO eventbroker.groups (
    tenant_id, name, event_types, ack_deadline, backoff_initial, backoff_multiplier, backoff_max, max_attempts,
    dead_letter_retention, sources, aggregate_types, tags, max_unsettled_events, max_unsettled_bytes, max_batch_events,
    ordered, fair, hold
)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)
ON CONFLICT DO NOTHING
RETURNING true;

-- name: create_memberships
INSERT INTO eventbroker.group_shards (tenant_id, name, shard, checkpoint, generation)
SELECT $1, $2, head.shard, coalesce(start.checkpoint, 0), extract(epoch FROM clock_timestamp()) * 1000 -- as above
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

-- name: count_retries
SELECT count(*)
FROM eventbroker.retries
WHERE tenant_id = $1 AND name = $2 AND shard = $3 AND position <= $4 AND NOT dropped;

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
    sources = coalesce($11, sources),
    aggregate_types = coalesce($12, aggregate_types),
    tags = coalesce($13, tags),
    max_unsettled_events = coalesce($14, max_unsettled_events),
    max_unsettled_bytes = coalesce($15, max_unsettled_bytes),
    max_batch_events = coalesce($16, max_batch_events),
    hold = coalesce($17, hold),
    updated_at = clock_timestamp()
WHERE tenant_id = $1 AND name = $2
RETURNING *;

-- name: unwanted_retry
-- A condition rather than a statement: what a group does not want any more, for the tables `retries` r and `events` e.
r.tenant_id = $1 AND r.name = $2 AND e.shard = r.shard AND e.position = r.position
    AND NOT (
        (
            e.event_type = ANY ($3::text[])
            OR EXISTS (SELECT FROM unnest($4::text[]) AS prefix WHERE starts_with(e.event_type, prefix))
        )
        AND eventbroker.meets(e.aggregate_type, e.metadata, $5::text[], $6::text[], $7::text[])
    )

-- name: forget_unwanted_retries
DELETE FROM eventbroker.retries r
USING eventbroker.events e
WHERE {unwanted_retry};

-- name: drop_unwanted_retries
-- Of a group that is fed in turn, where such an event may have the turn: it is forgotten when that comes.
UPDATE eventbroker.retries r
SET dropped = true, due_at = clock_timestamp()
FROM eventbroker.events e
WHERE {unwanted_retry};

-- name: hold_place
-- What dies while this waits for it has died before the seek. The seek itself would take the time before it waits.
SELECT true FROM eventbroker.group_shards WHERE tenant_id = $1 AND name = $2 AND shard = $3 FOR NO KEY UPDATE;

-- name: seek
-- Going back, what the group may have been given so far comes again: up to the head, as nothing tells it more closely.
UPDATE eventbroker.group_shards g
SET generation = g.generation + 1,
    checkpoint = $4,
    settled = '{}',
    sought_at = clock_timestamp(),
    replay_to = CASE WHEN $4 < g.checkpoint THEN greatest(g.replay_to, head.position) ELSE g.replay_to END,
    pace = $5,
    paced_to = head.position,
    updated_at = clock_timestamp()
FROM eventbroker.shard_head head
WHERE g.tenant_id = $1 AND g.name = $2 AND g.shard = $3 AND head.shard = $3
RETURNING true;

-- name: forget_retries
DELETE FROM eventbroker.retries WHERE tenant_id = $1 AND name = $2 AND shard = $3;

-- name: delete_group
DELETE FROM eventbroker.groups WHERE tenant_id = $1 AND name = $2 RETURNING true;

-- name: oldest_at
SELECT recorded_at
FROM eventbroker.events
WHERE shard = $3::integer AND position = least($4::bigint, (
    SELECT position
    FROM eventbroker.retries
    WHERE tenant_id = $1 AND name = $2 AND shard = $3
    ORDER BY position
    LIMIT 1
));

-- name: group_places
-- The first event after a checkpoint stands for the oldest one that is not settled: it is that, or of no concern to the
-- group, and then a little older. Before it are those that wait for another attempt.
SELECT g.tenant_id, g.name, s.shard, h.position AS head, s.checkpoint, e.recorded_at
FROM (
    SELECT tenant_id, name
    FROM eventbroker.groups
    WHERE $1 = '' OR tenant_id = $1
    ORDER BY tenant_id COLLATE "C", name COLLATE "C"
    LIMIT $2
) g
JOIN eventbroker.group_shards s USING (tenant_id, name)
JOIN eventbroker.shard_head h USING (shard)
CROSS JOIN LATERAL (
    SELECT least(s.checkpoint + 1, (
        SELECT retry.position
        FROM eventbroker.retries AS retry
        WHERE retry.tenant_id = s.tenant_id AND retry.name = s.name AND retry.shard = s.shard
        ORDER BY retry.position
        LIMIT 1
    )) AS position
) AS oldest
LEFT JOIN eventbroker.events e ON e.shard = s.shard AND e.position = oldest.position
ORDER BY g.tenant_id COLLATE "C", g.name COLLATE "C";
