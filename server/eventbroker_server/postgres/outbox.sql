-- name: outbox_shards
SELECT shard
FROM eventbroker.shard_head
WHERE EXISTS (SELECT FROM eventbroker.outbox WHERE outbox.shard = shard_head.shard)
ORDER BY shard;

-- name: outbox_turn
-- To the end of the transaction. Whoever does not get it need not wait: who has it goes on until nothing is left.
SELECT pg_try_advisory_xact_lock(hashtext('eventbroker.outbox'), $1);

-- name: outbox_rows
SELECT {told}, number
FROM (
    SELECT *, sum(octet_length(content)) OVER (ORDER BY number) - octet_length(content) AS bytes_before
    FROM (SELECT * FROM eventbroker.outbox WHERE shard = $1 ORDER BY number LIMIT $2) AS first
) AS page
WHERE bytes_before < $3
ORDER BY number;

-- name: outbox_forget
DELETE FROM eventbroker.outbox WHERE shard = $1 AND number = ANY ($2::bigint[]);

-- name: outbox_refuse
WITH gone AS (
    DELETE FROM eventbroker.outbox AS row
    USING unnest($2::bigint[], $3::text[]) AS refused(number, reason)
    WHERE row.shard = $1 AND row.number = refused.number
    RETURNING row.*, refused.reason
)
INSERT INTO eventbroker.outbox_refused SELECT * FROM gone;
