-- What a group asks of events beside their types, how much it lets each of its consumers have out, and how fast a seek
-- brings events again.

ALTER TABLE eventbroker.groups
    ADD COLUMN sources              text[] NOT NULL DEFAULT '{}', -- empty: of any source
    ADD COLUMN aggregate_types      text[] NOT NULL DEFAULT '{}', -- empty: of any type of aggregate
    ADD COLUMN tags                 text[] NOT NULL DEFAULT '{}', -- an event has all of them
    ADD COLUMN max_unsettled_events integer NOT NULL DEFAULT 0, -- 0: as many as the broker allows
    ADD COLUMN max_unsettled_bytes  bigint NOT NULL DEFAULT 0,
    ADD COLUMN max_batch_events     integer NOT NULL DEFAULT 0;

ALTER TABLE eventbroker.group_shards
    ADD COLUMN pace     double precision NOT NULL DEFAULT 0, -- events a second; 0: as fast as it goes
    ADD COLUMN paced_to bigint NOT NULL DEFAULT 0; -- up to here history is fed at that pace

-- Whether an event meets the conditions of a group: what domain/conditions.py says, for history. The planner puts the
-- expression in the place of the call.
CREATE FUNCTION eventbroker.meets(
    aggregate_type text, metadata jsonb, sources text[], aggregate_types text[], tags text[]
) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT (cardinality(sources) = 0 OR coalesce(metadata ->> 'source', '') = ANY (sources))
        AND (cardinality(aggregate_types) = 0 OR aggregate_type = ANY (aggregate_types))
        AND coalesce(metadata -> 'tags', '[]') @> to_jsonb(tags)
$$;
