-- Deliveries settled in a consumer's own transaction. See docs/sql.md.

-- Events that a consumer has settled with eventbroker.settle. A row goes when the group's checkpoint has passed it, or
-- when a seek has brought its event back.
CREATE TABLE eventbroker.settled_in_sql (
    tenant_id  text NOT NULL, -- of the group
    name       text NOT NULL, -- of the group
    shard      integer NOT NULL,
    position   bigint NOT NULL,
    settled_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant_id, name, shard, position),
    FOREIGN KEY (tenant_id, name) REFERENCES eventbroker.groups ON DELETE CASCADE
);

-- Whether the caller is the first to settle this event for the group: then it does what the event asks for, in this
-- transaction. Whoever asks for the same event meanwhile waits until this transaction ends. The tenant is the group's:
-- empty for a group of all tenants, which names the shard where there are several. Raises EB001 for a bad argument,
-- EB002 if there is no such group, EB003 if the group has no such event.
CREATE FUNCTION eventbroker.settle(
    tenant_id text, group_name text, event_position bigint, shard integer DEFAULT NULL
) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    scope CONSTANT text := coalesce(nullif(settle.tenant_id, ''), '*');
    place eventbroker.group_shards;
    unsettled boolean;
BEGIN
    IF settle.shard IS NULL AND (scope <> '*' OR (SELECT shards FROM eventbroker.installation) = 1) THEN
        settle.shard := eventbroker.shard_of(scope);
    END IF;
    IF settle.shard IS NULL OR event_position IS NULL THEN
        RAISE EXCEPTION USING
            ERRCODE = 'EB001',
            MESSAGE = CASE
                WHEN event_position IS NULL THEN 'event_position is required'
                ELSE 'shard is required for a group of all tenants, as there are several shards'
            END,
            HINT = 'The shard of an event is eventbroker.shard_of(its tenant_id).';
    END IF;
    SELECT * INTO place
    FROM eventbroker.group_shards AS g
    WHERE g.tenant_id = scope AND g.name = group_name AND g.shard = settle.shard;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING
            ERRCODE = 'EB002',
            MESSAGE = format('there is no group %s of %s in shard %s', coalesce(group_name, 'NULL'),
                CASE scope WHEN '*' THEN 'all tenants' ELSE 'tenant ' || scope END, settle.shard),
            HINT = 'The tenant is that of the group, not of the event: empty for a group of all tenants.';
    END IF;
    PERFORM FROM eventbroker.events AS e
    WHERE e.shard = settle.shard AND e.position = event_position AND (scope = '*' OR e.tenant_id = scope);
    IF NOT FOUND THEN
        RAISE EXCEPTION USING
            ERRCODE = 'EB003',
            MESSAGE = format('the group has no event at position %s of shard %s', event_position, settle.shard),
            HINT = 'The position is that of the delivered event.';
    END IF;
    INSERT INTO eventbroker.settled_in_sql AS settled (tenant_id, name, shard, position)
    VALUES (scope, group_name, settle.shard, event_position)
    ON CONFLICT ON CONSTRAINT settled_in_sql_pkey DO UPDATE
    SET settled_at = clock_timestamp()
    WHERE settled.settled_at <= place.sought_at; -- a seek brought it back
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    -- Its row may have been purged, or it was settled by an ack alone. This looks at what is true after the insert.
    SELECT g.checkpoint < event_position
        OR EXISTS (
            SELECT FROM eventbroker.retries AS retry
            WHERE retry.tenant_id = scope AND retry.name = group_name AND retry.shard = settle.shard
                AND retry.position = event_position
        )
        OR EXISTS (
            SELECT FROM eventbroker.dead_letters AS dead
            WHERE dead.tenant_id = scope AND dead.name = group_name AND dead.shard = settle.shard
                AND dead.position = event_position AND dead.dead_at > g.sought_at
        )
    INTO unsettled
    FROM eventbroker.group_shards AS g
    WHERE g.tenant_id = scope AND g.name = group_name AND g.shard = settle.shard;
    RETURN unsettled;
END
$$;

REVOKE ALL ON FUNCTION eventbroker.settle FROM PUBLIC;
