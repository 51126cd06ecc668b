-- name: purge_settled_in_sql
-- Once the checkpoint has passed an event, that says what its row said; but not to a transaction whose snapshot is
-- older, hence the ten minutes. An event that is dead may be redriven, though it was settled here.
WITH step AS (
    SELECT settled.tenant_id, settled.name, settled.shard, settled.position
    FROM eventbroker.group_shards AS place
    JOIN eventbroker.settled_in_sql AS settled USING (tenant_id, name, shard)
    WHERE settled.settled_at <= place.sought_at
        OR (
            settled.position <= place.checkpoint
            AND settled.settled_at < clock_timestamp() - interval '10 minutes'
            AND NOT EXISTS (
                SELECT
                FROM eventbroker.retries AS retry
                WHERE retry.tenant_id = settled.tenant_id AND retry.name = settled.name
                    AND retry.shard = settled.shard AND retry.position = settled.position
            )
            AND NOT EXISTS (
                SELECT
                FROM eventbroker.dead_letters AS dead
                WHERE dead.tenant_id = settled.tenant_id AND dead.name = settled.name
                    AND dead.shard = settled.shard AND dead.position = settled.position
            )
        )
    LIMIT $1
    FOR UPDATE OF settled SKIP LOCKED
), gone AS (
    DELETE FROM eventbroker.settled_in_sql AS settled
    USING step
    WHERE (settled.tenant_id, settled.name, settled.shard, settled.position)
        = (step.tenant_id, step.name, step.shard, step.position)
    RETURNING 1
)
SELECT count(*) FROM gone;
