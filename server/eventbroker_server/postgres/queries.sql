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

-- name: wanted_event
-- A condition rather than a statement: what a group wants of a range, and neither waits for another attempt nor was given
-- up since the last seek. It takes $1 to $3 and $5 to $11 of each.
shard = $1 AND position > $2 AND position <= $3
    AND (tenant_id = $5::text OR ($5 = '*' AND tenant_id <> '_broker'))
    AND (
        event_type = ANY ($6::text[])
        OR EXISTS (SELECT FROM unnest($7::text[]) AS prefix WHERE starts_with(event_type, prefix))
    )
    AND eventbroker.meets(aggregate_type, metadata, $9::text[], $10::text[], $11::text[])
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

-- name: next_generation
UPDATE eventbroker.group_shards
SET generation = $4 + 1, updated_at = clock_timestamp()
WHERE tenant_id = $1 AND name = $2 AND shard = $3 AND generation <= $4
RETURNING checkpoint, generation, replay_to, pace, paced_to;

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
    AND (tenant_id = $4::text OR ($4 = '*' AND tenant_id <> '_broker'))
    AND (
        event_type = ANY ($5::text[])
        OR EXISTS (SELECT FROM unnest($6::text[]) AS prefix WHERE starts_with(event_type, prefix))
    )
    AND eventbroker.meets(aggregate_type, metadata, $7::text[], $8::text[], $9::text[]);

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

-- name: hold_place
-- What dies while this waits for it has died before the seek. The seek itself would take the time before it waits.
SELECT true FROM eventbroker.group_shards WHERE tenant_id = $1 AND name = $2 AND shard = $3 FOR NO KEY UPDATE;

-- name: seek
-- Going back, what the group may have been given so far comes again: up to the head, as nothing tells it more closely.
UPDATE eventbroker.group_shards g
SET generation = g.generation + 1,
    checkpoint = $4,
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

-- name: installation
SELECT shards, ack_key FROM eventbroker.installation;

-- name: install
INSERT INTO eventbroker.installation (shards, ack_key) VALUES ($1, $2) ON CONFLICT DO NOTHING;

-- name: install_shards
INSERT INTO eventbroker.shard_head (shard)
SELECT generate_series(0, shards - 1) FROM eventbroker.installation
ON CONFLICT DO NOTHING;

-- name: at
SELECT {event} FROM eventbroker.events WHERE shard = $1 AND position = ANY ($2::bigint[]);

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

-- name: save_snapshot
-- One statement, so that it stores only what is not ahead: versions never fall.
WITH latest AS (
    SELECT coalesce(max(aggregate_version), 0) AS version
    FROM eventbroker.events
    WHERE tenant_id = $1 AND aggregate_type = $2 AND aggregate_id = $3
), saved AS (
    INSERT INTO eventbroker.snapshots (
        tenant_id, aggregate_type, aggregate_id, version, form, content_type, content, created_at
    )
    SELECT $1, $2, $3, $4, $5, $6, $7, clock_timestamp()
    FROM latest
    WHERE latest.version >= $4
    ON CONFLICT (tenant_id, aggregate_type, aggregate_id, version) DO UPDATE
    SET form = excluded.form, content_type = excluded.content_type, content = excluded.content,
        created_at = clock_timestamp() -- also after a wait for another who saves the same version
    RETURNING created_at
)
SELECT latest.version AS actual, saved.created_at
FROM latest
LEFT JOIN saved ON true;

-- name: snapshot
SELECT version, form, content_type, content, created_at
FROM eventbroker.snapshots
WHERE tenant_id = $1 AND aggregate_type = $2 AND aggregate_id = $3
    AND version <= coalesce($4::bigint, 9223372036854775807)
ORDER BY version DESC
LIMIT 1;

-- name: snapshots
SELECT version, created_at
FROM eventbroker.snapshots
WHERE tenant_id = $1 AND aggregate_type = $2 AND aggregate_id = $3
    AND version < coalesce($4::bigint, 9223372036854775807)
ORDER BY version DESC
LIMIT $5;

-- name: aggregate
-- The latest version of an aggregate, and the event that it was at as of a version ($4) or a time ($5); without either,
-- the latest. Versions have no gap and times rise with them, so the time is found by halves.
WITH RECURSIVE latest AS (
    SELECT aggregate_version AS version
    FROM eventbroker.events
    WHERE tenant_id = $1 AND aggregate_type = $2 AND aggregate_id = $3
    ORDER BY aggregate_version DESC
    LIMIT 1
), half(low, high) AS (
    SELECT 0::bigint, version + 1 FROM latest WHERE $5::timestamptz IS NOT NULL
    UNION ALL
    SELECT
        CASE WHEN e.recorded_at <= $5 THEN e.aggregate_version ELSE half.low END,
        CASE WHEN e.recorded_at <= $5 THEN half.high ELSE e.aggregate_version END
    FROM half
    JOIN eventbroker.events e
        ON e.tenant_id = $1 AND e.aggregate_type = $2 AND e.aggregate_id = $3
            AND e.aggregate_version = (half.low + half.high) / 2
    WHERE half.high - half.low > 1
), place AS (
    SELECT latest.version AS latest, coalesce((SELECT max(low) FROM half), $4::bigint, latest.version) AS version
    FROM latest
)
SELECT place.latest, event.aggregate_version AS version, event.position, event.recorded_at
FROM place
LEFT JOIN eventbroker.events AS event
    ON event.tenant_id = $1 AND event.aggregate_type = $2 AND event.aggregate_id = $3
        AND event.aggregate_version = place.version;

-- name: aggregate_events
SELECT {event}
FROM (
    SELECT *, sum(octet_length(content)) OVER (ORDER BY aggregate_version) AS bytes
    FROM eventbroker.events
    WHERE tenant_id = $1 AND aggregate_type = $2 AND aggregate_id = $3
        AND aggregate_version > $4 AND aggregate_version <= $5
) AS page
WHERE bytes <= $6 OR aggregate_version = $4 + 1
ORDER BY aggregate_version;

-- name: read_events
-- What is asked for of a range of positions: postgres/reader.py fills in the condition, whose parameters come after $5.
SELECT {event}, found
FROM (
    SELECT
        *,
        count(*) OVER () AS found,
        sum(octet_length(content)) OVER (ORDER BY position) - octet_length(content) AS bytes_before
    FROM (
        SELECT *
        FROM eventbroker.events
        WHERE shard = $1 AND position > $2 AND position <= $3 AND %(wanted)s
        ORDER BY position
        LIMIT $4
    ) AS asked
) AS page
WHERE bytes_before < $5
ORDER BY position;

-- name: history_page
-- The first events of a range in several lanes, each a way through an index in the order of places, which are positions
-- or versions. postgres/ways.py fills in the lane's condition, the column of its places, the order, and what else is
-- asked, whose parameters come after $8. OFFSET 0 keeps what else is asked out of the choice of the index.
SELECT {event}, found
FROM (
    SELECT
        event.*,
        count(*) OVER () AS found,
        row_number() OVER listed AS number,
        sum(octet_length(event.content) + octet_length(event.metadata::text)) OVER listed AS bytes
    FROM (
        SELECT entry.position
        FROM unnest($2::text[], $3::text[]) AS lane(kind, key)
        CROSS JOIN LATERAL (
            SELECT position
            FROM (
                SELECT *
                FROM eventbroker.events
                WHERE tenant_id = $1::text AND %(lane)s AND %(place)s > $4::bigint AND %(place)s <= $5::bigint
                ORDER BY %(place)s %(order)s
                OFFSET 0
            ) AS entry
            WHERE %(rest)s
            ORDER BY %(place)s %(order)s
            LIMIT $6::bigint
        ) AS entry
        ORDER BY entry.position %(order)s
        LIMIT $6
    ) AS entry
    CROSS JOIN LATERAL (
        SELECT * FROM eventbroker.events WHERE shard = $7::integer AND position = entry.position OFFSET 0
    ) AS event
    WINDOW listed AS (ORDER BY event.position %(order)s ROWS UNBOUNDED PRECEDING)
) AS page
WHERE bytes <= $8::bigint OR number = 1
ORDER BY position %(order)s;

-- name: history_step
-- Where so many entries of the lanes end, with those of all lanes counted together; nothing if there are fewer.
SELECT entry.place, entry.position
FROM unnest($2::text[], $3::text[]) AS lane(kind, key)
CROSS JOIN LATERAL (
    SELECT %(place)s AS place, position
    FROM eventbroker.events
    WHERE tenant_id = $1::text AND %(lane)s AND %(place)s > $4::bigint AND %(place)s <= $5::bigint
    ORDER BY %(place)s %(order)s
    LIMIT $6::bigint
) AS entry
ORDER BY entry.place %(order)s
OFFSET $6 - 1
LIMIT 1;

-- name: types_of_tenant
-- From each type to the next, however many events it has.
WITH RECURSIVE kind AS (
    (SELECT event_type FROM eventbroker.events WHERE tenant_id = $1 ORDER BY event_type LIMIT 1)
    UNION ALL
    SELECT next.event_type
    FROM kind
    CROSS JOIN LATERAL (
        SELECT event_type
        FROM eventbroker.events
        WHERE tenant_id = $1 AND event_type > kind.event_type
        ORDER BY event_type
        LIMIT 1
    ) AS next
)
SELECT event_type FROM kind;

-- name: version_at
-- The version that an aggregate had at a position. By halves, as positions rise with versions, which have no gap.
WITH RECURSIVE half(low, high) AS (
    SELECT 0::bigint, 1 + coalesce((
        SELECT aggregate_version
        FROM eventbroker.events
        WHERE tenant_id = $1 AND aggregate_type = $2 AND aggregate_id = $3
        ORDER BY aggregate_version DESC
        LIMIT 1
    ), 0)
    UNION ALL
    SELECT
        CASE WHEN e.position <= $4 THEN e.aggregate_version ELSE half.low END,
        CASE WHEN e.position <= $4 THEN half.high ELSE e.aggregate_version END
    FROM half
    JOIN eventbroker.events e
        ON e.tenant_id = $1 AND e.aggregate_type = $2 AND e.aggregate_id = $3
        AND e.aggregate_version = (half.low + half.high) / 2
    WHERE half.high - half.low > 1
)
SELECT max(low) FROM half;

-- name: aggregates
-- After a type and an id, up to a type.
SELECT latest.*
FROM (
    SELECT aggregate_type, aggregate_id
    FROM eventbroker.events
    WHERE tenant_id = $1 AND aggregate_version = 1
        AND (aggregate_type COLLATE "C", aggregate_id COLLATE "C") > ($2::text, $3::text)
        AND aggregate_type COLLATE "C" <= $4::text
    ORDER BY aggregate_type COLLATE "C", aggregate_id COLLATE "C"
    LIMIT $5
) AS first
CROSS JOIN LATERAL (
    SELECT aggregate_type, aggregate_id, aggregate_version, position, recorded_at
    FROM eventbroker.events
    WHERE tenant_id = $1 AND aggregate_type = first.aggregate_type AND aggregate_id = first.aggregate_id
    ORDER BY aggregate_version DESC
    LIMIT 1
) AS latest
ORDER BY latest.aggregate_type COLLATE "C", latest.aggregate_id COLLATE "C";

-- name: link
-- Columns rather than a statement: what is to be known of an event to put it into a tree of causes.
position, event_id, coalesce(metadata ->> 'caused_by', '') AS caused_by,
octet_length(content) + octet_length(metadata::text) AS bytes

-- name: links_near
-- What these ids caused, and the events of those ids; the first so many that are not known yet.
SELECT effect.*
FROM unnest($2::text[]) AS cause(id)
CROSS JOIN LATERAL (
    SELECT {link}
    FROM eventbroker.events
    WHERE tenant_id = $1 AND metadata ->> 'caused_by' = cause.id AND metadata ->> 'caused_by' <> ''
        AND position <> ALL ($4::bigint[])
    ORDER BY position
    LIMIT $5::bigint
) AS effect
UNION
SELECT cause.*
FROM unnest($3::text[]) AS effect(caused_by)
CROSS JOIN LATERAL (
    SELECT {link}
    FROM eventbroker.events
    WHERE tenant_id = $1 AND event_id = effect.caused_by AND position <> ALL ($4)
    OFFSET 0
) AS cause
ORDER BY position
LIMIT $5;

-- name: links_correlated
SELECT {link}
FROM eventbroker.events
WHERE tenant_id = $1 AND correlation_id = $2 AND correlation_id <> '' AND position <> ALL ($3::bigint[])
ORDER BY position
LIMIT $4;

-- name: group_places
-- The first event after a checkpoint stands for the oldest one that is not settled: it is that, or of no concern to the
-- group, and then a little older.
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
LEFT JOIN eventbroker.events e ON e.shard = s.shard AND e.position = s.checkpoint + 1
ORDER BY g.tenant_id COLLATE "C", g.name COLLATE "C";
