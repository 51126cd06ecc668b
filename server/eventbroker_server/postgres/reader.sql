-- name: read_events
-- What is asked for of a range of positions: postgres/reader.py fills in the condition, whose parameters come after $5.
-- OFFSET 0 keeps it out of the choice of the index: others have no range of positions without what goes before.
SELECT {event}, found
FROM (
    SELECT
        *,
        count(*) OVER () AS found,
        sum(octet_length(content)) OVER (ORDER BY position) - octet_length(content) AS bytes_before
    FROM (
        SELECT *
        FROM (
            SELECT * FROM eventbroker.events WHERE shard = $1 AND position > $2 AND position <= $3
            ORDER BY position
            OFFSET 0
        ) AS range
        WHERE %(wanted)s
        ORDER BY position
        LIMIT $4
    ) AS asked
) AS page
WHERE bytes_before < $5
ORDER BY position;
