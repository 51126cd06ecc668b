-- Groups that get the events of an aggregate one after the other, or those of their tenants in turn.

ALTER TABLE eventbroker.groups
    ADD COLUMN ordered boolean NOT NULL DEFAULT false,
    ADD COLUMN fair    boolean NOT NULL DEFAULT false,
    ADD COLUMN hold    boolean NOT NULL DEFAULT false; -- whether a dead event makes dead what follows of its aggregate

-- The aggregate of the event: the next of it waits for this one.
ALTER TABLE eventbroker.retries
    ADD COLUMN event_tenant_id text,
    ADD COLUMN aggregate_type  text,
    ADD COLUMN aggregate_id    text,
    ADD COLUMN dropped         boolean NOT NULL DEFAULT false; -- not wanted any more; it keeps its turn until it is due

UPDATE eventbroker.retries AS retry
SET event_tenant_id = event.tenant_id, aggregate_type = event.aggregate_type, aggregate_id = event.aggregate_id
FROM eventbroker.events AS event
WHERE event.shard = retry.shard AND event.position = retry.position;

ALTER TABLE eventbroker.retries
    ALTER COLUMN event_tenant_id SET NOT NULL,
    ALTER COLUMN aggregate_type SET NOT NULL,
    ALTER COLUMN aggregate_id SET NOT NULL;

CREATE INDEX retries_of_aggregate ON eventbroker.retries (
    tenant_id, name, shard, event_tenant_id, aggregate_type, aggregate_id, position
);

CREATE INDEX dead_letters_of_aggregate ON eventbroker.dead_letters (
    tenant_id, name, shard, event_tenant_id, aggregate_type, aggregate_id, position
);

-- Of many that are due at once the first go first.
DROP INDEX eventbroker.retries_due;
CREATE INDEX retries_due ON eventbroker.retries (tenant_id, name, shard, due_at, position);
