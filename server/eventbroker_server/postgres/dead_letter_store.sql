-- name: wanted_dead_letter
-- A condition rather than a statement: what a DeadLetterFilter means, for a table `dead`. It stands in those below, and
-- takes $1 to $11 of each.
dead.tenant_id = $1 AND dead.name = $2
    AND (
        dead.event_type = ANY ($3::text[])
        OR EXISTS (SELECT FROM unnest($4::text[]) AS prefix WHERE starts_with(dead.event_type, prefix))
    )
    AND ($5::text = '' OR dead.aggregate_type = $5)
    AND ($6::text = '' OR dead.aggregate_id = $6)
    AND ($7::text = '' OR dead.event_tenant_id = $7)
    AND (
        cardinality($8::text[]) = 0
        OR dead.event_id IN (SELECT unnest($8)) -- looked up by hash, where ANY would compare each
    )
    AND ($9::text = '' OR strpos(dead.reason, $9) > 0)
    AND dead.dead_at >= coalesce($10::timestamptz, '-infinity')
    AND dead.dead_at < coalesce($11::timestamptz, 'infinity')

-- name: dead_letters
SELECT
    event_tenant_id, event_id, event_type, aggregate_type, aggregate_id, shard, position, attempts, reason, rejected,
    dead_at
FROM eventbroker.dead_letters AS dead
WHERE {wanted_dead_letter}
    AND (dead_at, shard, position) < (coalesce($12::timestamptz, 'infinity'), $13::integer, $14::bigint)
ORDER BY dead_at DESC, shard DESC, position DESC
LIMIT $15;

-- name: dead_letter
-- By way of the event, whose id has an index.
SELECT
    dead.event_tenant_id, dead.event_id, dead.event_type, dead.aggregate_type, dead.aggregate_id, dead.shard,
    dead.position, dead.attempts, dead.reason, dead.rejected, dead.dead_at, dead.history
FROM eventbroker.events AS event
JOIN eventbroker.dead_letters AS dead USING (shard, position)
WHERE event.tenant_id = $3 AND event.event_id = $4 AND dead.tenant_id = $1 AND dead.name = $2;

-- name: count_dead_letters
SELECT count(*) FROM eventbroker.dead_letters AS dead WHERE {wanted_dead_letter};

-- name: hold_group
-- The lock that a new row of the group takes anyway: taken first, since who deletes the group takes it first, too.
SELECT true FROM eventbroker.groups WHERE tenant_id = $1 AND name = $2 FOR KEY SHARE;

-- name: hold_dead_letters
-- Which of these events are dead letters of the group; they stay so to the end of the transaction. All who lock several
-- do it in this order.
SELECT dead.event_id
FROM eventbroker.events AS event
JOIN eventbroker.dead_letters AS dead USING (shard, position)
WHERE event.tenant_id = $3 AND event.event_id = ANY ($4::text[]) AND dead.tenant_id = $1 AND dead.name = $2
ORDER BY dead.dead_at, dead.shard, dead.position
FOR UPDATE OF dead;

-- name: redrive
-- Who waited here for another redrive finds rows gone, and goes on to the next. An event that a seek brought back may
-- be on its way to the group already: then there is a row of its attempts, which stays as it is. The delivery that failed
-- last is kept, as it may still be set aside in Redis: so it is neither counted again nor left there.
WITH oldest AS (
    SELECT dead.tenant_id, dead.name, dead.shard, dead.position, dead.dead_at
    FROM eventbroker.dead_letters AS dead
    WHERE {wanted_dead_letter}
    ORDER BY dead.dead_at, dead.shard, dead.position
    LIMIT $12
    FOR UPDATE
), numbered AS (
    SELECT *, row_number() OVER (ORDER BY dead_at, shard, position) - 1 AS number FROM oldest
), gone AS (
    DELETE FROM eventbroker.dead_letters AS dead
    USING numbered
    WHERE (dead.tenant_id, dead.name, dead.shard, dead.position)
        = (numbered.tenant_id, numbered.name, numbered.shard, numbered.position)
    RETURNING dead.*, numbered.number
), redriven AS (
    INSERT INTO eventbroker.retries (
        tenant_id, name, shard, position, event_tenant_id, aggregate_type, aggregate_id, attempts, due_at, queued,
        delivery, history
    )
    SELECT
        tenant_id, name, shard, position, event_tenant_id, aggregate_type, aggregate_id, 0,
        now() + CASE WHEN $13::double precision > 0 THEN number / $13 ELSE 0 END * interval '1 second',
        0, delivery, history
    FROM gone
    ON CONFLICT DO NOTHING
)
SELECT count(*) FROM gone;

-- name: delete_dead_letters
WITH step AS (
    SELECT dead.tenant_id, dead.name, dead.shard, dead.position
    FROM eventbroker.dead_letters AS dead
    WHERE {wanted_dead_letter}
    ORDER BY dead.dead_at, dead.shard, dead.position
    LIMIT $12
    FOR UPDATE
), gone AS (
    DELETE FROM eventbroker.dead_letters AS dead
    USING step
    WHERE (dead.tenant_id, dead.name, dead.shard, dead.position)
        = (step.tenant_id, step.name, step.shard, step.position)
    RETURNING 1
)
SELECT count(*) FROM gone;

-- name: purge_dead_letters
-- What another broker purges or redrives at this moment is passed over. A retention is taken for a century at most, as
-- a time has its bounds.
WITH step AS (
    SELECT dead.tenant_id, dead.name, dead.shard, dead.position
    FROM eventbroker.groups
    JOIN eventbroker.dead_letters AS dead USING (tenant_id, name)
    WHERE dead.dead_at < now() - least(groups.dead_letter_retention, 3.2e9) * interval '1 second'
    LIMIT $1
    FOR UPDATE OF dead SKIP LOCKED
), gone AS (
    DELETE FROM eventbroker.dead_letters AS dead
    USING step
    WHERE (dead.tenant_id, dead.name, dead.shard, dead.position)
        = (step.tenant_id, step.name, step.shard, step.position)
    RETURNING 1
)
SELECT count(*) FROM gone;
