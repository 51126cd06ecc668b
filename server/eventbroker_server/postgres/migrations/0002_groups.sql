-- Consumer groups, and how far each has come in each shard.

CREATE TABLE eventbroker.groups (
    tenant_id    text NOT NULL, -- '*' for a group that gets the events of all tenants
    name         text NOT NULL,
    event_types  text[] NOT NULL,
    ack_deadline double precision NOT NULL, -- seconds
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant_id, name)
);

CREATE TABLE eventbroker.group_shards (
    tenant_id  text NOT NULL,
    name       text NOT NULL,
    shard      integer NOT NULL,
    checkpoint bigint NOT NULL,             -- every event of the group up to here is settled
    generation bigint NOT NULL DEFAULT 0,   -- how often the group was made in Redis
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant_id, name, shard),
    FOREIGN KEY (tenant_id, name) REFERENCES eventbroker.groups ON DELETE CASCADE
) WITH (fillfactor = 50);
