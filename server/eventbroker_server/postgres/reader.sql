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
