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
    CROSS JOIN LATERAL (
        SELECT aggregate_version, recorded_at
        FROM eventbroker.events
        WHERE tenant_id = $1 AND aggregate_type = $2 AND aggregate_id = $3
            AND aggregate_version BETWEEN (half.low + half.high) / 2 AND (half.low + half.high) / 2 -- as version_at
        ORDER BY aggregate_version
        LIMIT 1
    ) AS e
    WHERE half.high - half.low > 1
), place AS (
    SELECT latest.version AS latest, coalesce((SELECT max(low) FROM half), $4::bigint, latest.version) AS version
    FROM latest
)
SELECT place.latest, event.aggregate_version AS version, event.position, event.recorded_at
FROM place
LEFT JOIN LATERAL (
    SELECT aggregate_version, position, recorded_at
    FROM eventbroker.events
    WHERE tenant_id = $1 AND aggregate_type = $2 AND aggregate_id = $3
        AND aggregate_version BETWEEN place.version AND place.version
    ORDER BY aggregate_version
    LIMIT 1
) AS event ON true;

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
