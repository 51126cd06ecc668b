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
-- The version that an aggregate had at a position. By halves, as positions rise with versions, which have no gap. A range
-- in order, of one version, can only go through the index of versions, whatever the planner takes aggregates for.
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
    CROSS JOIN LATERAL (
        SELECT aggregate_version, position
        FROM eventbroker.events
        WHERE tenant_id = $1 AND aggregate_type = $2 AND aggregate_id = $3
            AND aggregate_version BETWEEN (half.low + half.high) / 2 AND (half.low + half.high) / 2
        ORDER BY aggregate_version
        LIMIT 1
    ) AS e
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
    WHERE tenant_id = $1 AND event_id BETWEEN effect.caused_by AND effect.caused_by -- as events_by_id
        AND position <> ALL ($4)
    ORDER BY event_id
    LIMIT 1
) AS cause
ORDER BY position
LIMIT $5;

-- name: links_correlated
SELECT {link}
FROM eventbroker.events
WHERE tenant_id = $1 AND correlation_id = $2 AND correlation_id <> '' AND position <> ALL ($3::bigint[])
ORDER BY position
LIMIT $4;

-- Backup and move: transfer/exporting.py and transfer/importing.py.
