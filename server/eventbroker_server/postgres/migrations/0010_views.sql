-- What may be looked at by SQL, beside eventbroker.event_store: these views stay as they are, or grow columns, whatever
-- becomes of the tables. Empty tenants stand for all tenants. See docs/sql.md.

CREATE VIEW eventbroker.consumer_groups AS
SELECT
    CASE tenant_id WHEN '*' THEN '' ELSE tenant_id END AS tenant_id,
    name AS group_name,
    event_types,
    sources,
    aggregate_types,
    tags,
    CASE WHEN ordered THEN 'by_aggregate' WHEN fair THEN 'fair' ELSE 'none' END AS ordering,
    paused,
    ack_deadline * interval '1 second' AS ack_deadline,
    max_attempts,
    backoff_initial * interval '1 second' AS backoff_initial,
    backoff_multiplier,
    backoff_max * interval '1 second' AS backoff_max,
    dead_letter_retention,
    created_at,
    updated_at
FROM eventbroker.groups;

COMMENT ON COLUMN eventbroker.consumer_groups.dead_letter_retention IS 'in seconds';

CREATE VIEW eventbroker.group_lag AS
SELECT
    CASE place.tenant_id WHEN '*' THEN '' ELSE place.tenant_id END AS tenant_id,
    place.name AS group_name,
    place.shard,
    head.position AS head,
    place.checkpoint,
    greatest(head.position - place.checkpoint, 0) AS lag,
    waiting.retries AS waiting_retries,
    given_up.dead_letters,
    (
        SELECT min(event.recorded_at)
        FROM eventbroker.events AS event
        WHERE event.shard = place.shard AND event.position IN (place.checkpoint + 1, waiting.oldest)
    ) AS oldest_unsettled_at,
    place.updated_at
FROM eventbroker.group_shards AS place
JOIN eventbroker.shard_head AS head USING (shard)
CROSS JOIN LATERAL (
    SELECT count(*) AS retries, min(retry.position) AS oldest
    FROM eventbroker.retries AS retry
    WHERE retry.tenant_id = place.tenant_id AND retry.name = place.name AND retry.shard = place.shard
) AS waiting
CROSS JOIN LATERAL (
    SELECT count(*) AS dead_letters
    FROM eventbroker.dead_letters AS dead
    WHERE dead.tenant_id = place.tenant_id AND dead.name = place.name AND dead.shard = place.shard
) AS given_up;

COMMENT ON COLUMN eventbroker.group_lag.lag IS
    'positions after the checkpoint, also of events that the group does not want or has settled since';
COMMENT ON COLUMN eventbroker.group_lag.oldest_unsettled_at IS
    'when the oldest event that may be unsettled was stored; what was settled since the checkpoint is not known here';

CREATE VIEW eventbroker.dead_letter_list AS
SELECT
    CASE dead.tenant_id WHEN '*' THEN '' ELSE dead.tenant_id END AS group_tenant_id,
    dead.name AS group_name,
    dead.reason,
    dead.rejected,
    dead.attempts,
    dead.history,
    dead.dead_at,
    event.*
FROM eventbroker.dead_letters AS dead
JOIN eventbroker.event_store AS event USING (shard, position);

CREATE VIEW eventbroker.outbox_lag AS
SELECT
    head.shard,
    (SELECT count(*) FROM eventbroker.outbox WHERE outbox.shard = head.shard) AS waiting,
    (SELECT min(published_at) FROM eventbroker.outbox WHERE outbox.shard = head.shard) AS oldest_published_at,
    (SELECT count(*) FROM eventbroker.outbox_refused WHERE outbox_refused.shard = head.shard) AS refused
FROM eventbroker.shard_head AS head;

CREATE VIEW eventbroker.refused_events AS
SELECT
    shard, number, reason, refused_at, published_at, tenant_id, event_id, event_type, event_version, aggregate_type,
    aggregate_id, user_id, session_id, request_id, correlation_id, timestamp, form, content_type, content, metadata
FROM eventbroker.outbox_refused;
