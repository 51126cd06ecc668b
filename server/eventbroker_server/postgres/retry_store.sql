-- name: blocked
-- Which of these aggregates have an event that waits for another attempt, or, if dead events hold back what follows,
-- one that was given up since the last seek.
SELECT wanted.tenant_id, wanted.aggregate_type, wanted.aggregate_id
FROM unnest($5::text[], $6::text[], $7::text[]) AS wanted(tenant_id, aggregate_type, aggregate_id)
WHERE EXISTS (
        SELECT
        FROM eventbroker.retries AS retry
        WHERE retry.tenant_id = $1 AND retry.name = $2 AND retry.shard = $3
            AND retry.event_tenant_id = wanted.tenant_id AND retry.aggregate_type = wanted.aggregate_type
            AND retry.aggregate_id = wanted.aggregate_id
    )
    OR $4 AND EXISTS (
        SELECT
        FROM eventbroker.dead_letters AS dead
        JOIN eventbroker.group_shards AS place USING (tenant_id, name, shard)
        WHERE dead.tenant_id = $1 AND dead.name = $2 AND dead.shard = $3
            AND dead.event_tenant_id = wanted.tenant_id AND dead.aggregate_type = wanted.aggregate_type
            AND dead.aggregate_id = wanted.aggregate_id AND dead.dead_at > place.sought_at
    );

-- name: turns
-- Events that have the turn, with what is known of them: how many attempts failed; whether they are not wanted any
-- more; whether they were given up since the last seek; the first event of the aggregate that waits for another attempt; and the last before it that was given up.
SELECT
    {event},
    (
        SELECT retry.attempts
        FROM eventbroker.retries AS retry
        WHERE retry.tenant_id = $1 AND retry.name = $2 AND retry.shard = $3 AND retry.position = event.position
    ) AS failed,
    EXISTS (
        SELECT
        FROM eventbroker.retries AS retry
        WHERE retry.tenant_id = $1 AND retry.name = $2 AND retry.shard = $3 AND retry.position = event.position
            AND retry.dropped
    ) AS dropped,
    EXISTS (
        SELECT
        FROM eventbroker.dead_letters AS dead
        JOIN eventbroker.group_shards AS place USING (tenant_id, name, shard)
        WHERE dead.tenant_id = $1 AND dead.name = $2 AND dead.shard = $3 AND dead.position = event.position
            AND dead.dead_at > place.sought_at
    ) AS dead,
    EXISTS (
        SELECT
        FROM eventbroker.retries AS retry
        WHERE retry.tenant_id = $1 AND retry.name = $2 AND retry.shard = $3
            AND retry.event_tenant_id = event.tenant_id AND retry.aggregate_type = event.aggregate_type
            AND retry.aggregate_id = event.aggregate_id AND retry.position < event.position
    ) AS waits,
    (
        SELECT dead.position
        FROM eventbroker.dead_letters AS dead
        JOIN eventbroker.group_shards AS place USING (tenant_id, name, shard)
        WHERE dead.tenant_id = $1 AND dead.name = $2 AND dead.shard = $3
            AND dead.event_tenant_id = event.tenant_id AND dead.aggregate_type = event.aggregate_type
            AND dead.aggregate_id = event.aggregate_id AND dead.position < event.position
            AND dead.dead_at > place.sought_at
        ORDER BY dead.position DESC
        LIMIT 1
    ) AS dead_before
FROM (
    SELECT *, sum(octet_length(content)) OVER (ORDER BY position) - octet_length(content) AS bytes_before
    FROM eventbroker.events
    WHERE shard = $3 AND position = ANY ($4::bigint[])
) AS event
WHERE bytes_before < $5;

-- name: hold_dead
-- Which of these are dead letters since the last seek; they stay so to the end of the transaction. All who lock several
-- do it in this order.
SELECT dead.position
FROM eventbroker.dead_letters AS dead
JOIN eventbroker.group_shards AS place USING (tenant_id, name, shard)
WHERE dead.tenant_id = $1 AND dead.name = $2 AND dead.shard = $3 AND dead.position = ANY ($4::bigint[])
    AND dead.dead_at > place.sought_at
ORDER BY dead.dead_at, dead.shard, dead.position
FOR UPDATE OF dead;

-- name: failed_before
SELECT position, attempts, delivery
FROM eventbroker.retries
WHERE tenant_id = $1 AND name = $2 AND shard = $3 AND position = ANY ($4::bigint[])
ORDER BY position
FOR UPDATE;

-- name: dead_of
SELECT position, delivery
FROM eventbroker.dead_letters
WHERE tenant_id = $1 AND name = $2 AND shard = $3 AND position = ANY ($4::bigint[]);

-- name: save_retries
INSERT INTO eventbroker.retries AS retry (
    tenant_id, name, shard, position, event_tenant_id, aggregate_type, aggregate_id, attempts, due_at, delivery, history
)
SELECT $1, $2, $3, item.position, event.tenant_id, event.aggregate_type, event.aggregate_id, item.attempts,
    clock_timestamp() + item.delay * interval '1 second', item.delivery, jsonb_build_array(item.entry)
FROM unnest($4::bigint[], $5::integer[], $6::text[], $7::text[]::jsonb[], $8::double precision[])
    AS item(position, attempts, delivery, entry, delay)
JOIN eventbroker.events AS event ON event.shard = $3 AND event.position = item.position
ON CONFLICT (tenant_id, name, shard, position) DO UPDATE
SET attempts = excluded.attempts, due_at = excluded.due_at, queued = 0, delivery = excluded.delivery,
    history = retry.history || excluded.history
WHERE retry.delivery <> excluded.delivery; -- another broker may have recorded it since

-- name: save_dead_letters
INSERT INTO eventbroker.dead_letters AS dead (
    tenant_id, name, shard, position, event_tenant_id, event_id, event_type, aggregate_type, aggregate_id, attempts,
    reason, rejected, delivery, history
)
SELECT $1, $2, $3, item.position, event.tenant_id, event.event_id, event.event_type, event.aggregate_type,
    event.aggregate_id, item.attempts, item.entry ->> 'error', item.rejected, item.delivery,
    coalesce(retry.history, '[]') || jsonb_build_array(item.entry)
FROM unnest($4::bigint[], $5::integer[], $6::text[], $7::text[]::jsonb[], $8::boolean[])
    AS item(position, attempts, delivery, entry, rejected)
JOIN eventbroker.events AS event ON event.shard = $3 AND event.position = item.position
LEFT JOIN eventbroker.retries AS retry
    ON retry.tenant_id = $1 AND retry.name = $2 AND retry.shard = $3 AND retry.position = item.position
ON CONFLICT (tenant_id, name, shard, position) DO UPDATE -- after a seek it was delivered again, and failed again
SET attempts = excluded.attempts, reason = excluded.reason, rejected = excluded.rejected,
    delivery = excluded.delivery, history = dead.history || excluded.history, dead_at = excluded.dead_at
WHERE dead.delivery <> excluded.delivery
RETURNING position, event_tenant_id, event_id, event_type, attempts, reason, delivery;

-- name: drop_retries
DELETE FROM eventbroker.retries
WHERE tenant_id = $1 AND name = $2 AND shard = $3 AND position = ANY ($4::bigint[]);

-- name: waiting_groups
-- Two look-ups for each group that is asked for, however many rows it has. Those that are queued are among the first due,
-- and no more than a retry stream and its consumers hold. The limits keep the look-ups apart: joined, they would become a
-- scan of all rows. The difference keeps the planner from guessing how many are queued: while all are 0 it takes the
-- plain comparison to leave nothing, and sorts all rows rather than read them in order.
SELECT wanted.tenant_id, wanted.name, wanted.shard, extract(epoch FROM next.due_at - clock_timestamp())::float8
FROM unnest($1::text[], $2::text[], $3::integer[]) AS wanted(tenant_id, name, shard)
JOIN eventbroker.group_shards AS place USING (tenant_id, name, shard)
CROSS JOIN LATERAL (
    SELECT
    FROM eventbroker.retries AS retry
    WHERE retry.tenant_id = wanted.tenant_id AND retry.name = wanted.name AND retry.shard = wanted.shard
    LIMIT 1
) AS any_of_it
LEFT JOIN LATERAL (
    SELECT retry.due_at
    FROM eventbroker.retries AS retry
    WHERE retry.tenant_id = wanted.tenant_id AND retry.name = wanted.name AND retry.shard = wanted.shard
        AND retry.queued - place.generation <> 0
    ORDER BY retry.due_at
    LIMIT 1
) AS next ON true;

-- name: due_retries
-- Locked until they are noted as queued: no other broker has a list of them that grows old. A clock that goes on within
-- the statement would bound no scan of an index; the difference is as above.
SELECT position, attempts, delivery, event_tenant_id, aggregate_type, aggregate_id
FROM eventbroker.retries
WHERE tenant_id = $1 AND name = $2 AND shard = $3 AND queued - $4 <> 0 AND due_at <= statement_timestamp()
ORDER BY due_at, position
LIMIT $5
FOR UPDATE SKIP LOCKED;

-- name: postpone
UPDATE eventbroker.retries
SET due_at = clock_timestamp() + interval '2 seconds'
WHERE tenant_id = $1 AND name = $2 AND shard = $3 AND position = ANY ($4::bigint[]);

-- name: queue_again
-- The same failure comes once more if Redis has lost what it was told since: then the attempt is in no stream.
UPDATE eventbroker.retries
SET queued = 0
WHERE tenant_id = $1 AND name = $2 AND shard = $3 AND position = ANY ($4::bigint[]);

-- name: lock_retries
-- Waits for those who have rows of due_retries in hand, and are about to note them as queued.
LOCK TABLE eventbroker.retries IN EXCLUSIVE MODE;

-- name: queue_all_again
UPDATE eventbroker.retries SET queued = 0 WHERE queued <> 0;

-- name: note_queued
UPDATE eventbroker.retries AS retry
SET queued = $4
FROM unnest($5::bigint[], $6::integer[]) AS item(position, attempts)
WHERE retry.tenant_id = $1 AND retry.name = $2 AND retry.shard = $3 AND retry.position = item.position
    AND retry.attempts = item.attempts;

-- name: settle_retries
-- Not for another generation: there the same attempt of the same event may not be settled.
DELETE FROM eventbroker.retries AS retry
USING unnest($5::bigint[], $6::integer[]) AS item(position, attempts), eventbroker.group_shards AS place
WHERE retry.tenant_id = $1 AND retry.name = $2 AND retry.shard = $3 AND retry.position = item.position
    AND retry.attempts = item.attempts
    AND place.tenant_id = $1 AND place.name = $2 AND place.shard = $3 AND place.generation = $4;

-- name: hold_generation
SELECT generation FROM eventbroker.group_shards WHERE tenant_id = $1 AND name = $2 AND shard = $3 FOR SHARE;

-- name: unsettled_of
SELECT position, attempts
FROM eventbroker.retries
WHERE tenant_id = $1 AND name = $2 AND shard = $3 AND position = ANY ($4::bigint[])
UNION ALL
SELECT dead.position, -1
FROM eventbroker.dead_letters AS dead
JOIN eventbroker.group_shards AS place USING (tenant_id, name, shard)
WHERE tenant_id = $1 AND name = $2 AND shard = $3 AND dead.position = ANY ($4::bigint[])
    AND dead.dead_at > place.sought_at;

-- name: trouble
SELECT attempts, history -> -1 ->> 'error', due_at, NULL::timestamptz
FROM eventbroker.retries
WHERE tenant_id = $1 AND name = $2 AND shard = $3 AND position = $4
UNION ALL
SELECT dead.attempts, dead.reason, NULL, dead.dead_at
FROM eventbroker.dead_letters AS dead
JOIN eventbroker.group_shards AS place USING (tenant_id, name, shard)
WHERE tenant_id = $1 AND name = $2 AND shard = $3 AND dead.position = $4 AND dead.dead_at > place.sought_at
LIMIT 1;

-- name: oldest_retry
SELECT position
FROM eventbroker.retries
WHERE tenant_id = $1 AND name = $2 AND shard = $3
ORDER BY position
LIMIT 1;
