-- What a group does with deliveries that fail, and what became of them.

ALTER TABLE eventbroker.groups
    ADD COLUMN max_attempts          integer NOT NULL DEFAULT 10,
    ADD COLUMN backoff_initial       double precision NOT NULL DEFAULT 1,         -- seconds
    ADD COLUMN backoff_multiplier    double precision NOT NULL DEFAULT 2,
    ADD COLUMN backoff_max           double precision NOT NULL DEFAULT 300,       -- seconds
    ADD COLUMN dead_letter_retention double precision NOT NULL DEFAULT 2592000,   -- seconds: 30 days
    ADD COLUMN paused                boolean NOT NULL DEFAULT false,
    ADD COLUMN updated_at            timestamptz NOT NULL DEFAULT clock_timestamp();

-- From now on the checkpoint says that every event of the group up to it is settled, or has a row in one of the two
-- tables below.
ALTER TABLE eventbroker.group_shards
    ADD COLUMN replay_to bigint NOT NULL DEFAULT 0, -- up to here a seek made the group get events again
    ADD COLUMN sought_at timestamptz NOT NULL DEFAULT '-infinity'; -- what was dead-lettered before, a seek delivers again

-- An event that waits for its next attempt, or is out for it. The row is there until the event is settled.
CREATE TABLE eventbroker.retries (
    tenant_id text NOT NULL, -- of the group
    name      text NOT NULL, -- of the group
    shard     integer NOT NULL,
    position  bigint NOT NULL,
    attempts  integer NOT NULL,          -- how many have failed
    due_at    timestamptz NOT NULL,
    queued    bigint NOT NULL DEFAULT 0, -- the generation in which it was put into the group's retry stream, once due
    delivery  text NOT NULL,             -- the delivery that failed last: recording it twice counts it once
    history   jsonb NOT NULL,            -- a list, the oldest first: {"attempt", "at", "consumer", "error"}
    PRIMARY KEY (tenant_id, name, shard, position),
    FOREIGN KEY (tenant_id, name) REFERENCES eventbroker.groups ON DELETE CASCADE
);

CREATE INDEX retries_due ON eventbroker.retries (tenant_id, name, shard, due_at);

-- An event that a group has given up. It stays here until it is redriven, deleted or past its retention.
CREATE TABLE eventbroker.dead_letters (
    tenant_id       text NOT NULL, -- of the group
    name            text NOT NULL, -- of the group
    shard           integer NOT NULL,
    position        bigint NOT NULL,
    event_tenant_id text NOT NULL,
    event_id        text NOT NULL,
    event_type      text NOT NULL,
    aggregate_type  text NOT NULL,
    aggregate_id    text NOT NULL,
    attempts        integer NOT NULL,
    reason          text NOT NULL, -- the last error, or what the consumer said when it rejected the event
    rejected        boolean NOT NULL, -- whether a consumer asked for it, rather than the last attempt failing
    delivery        text NOT NULL,
    history         jsonb NOT NULL, -- as in retries
    dead_at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant_id, name, shard, position),
    FOREIGN KEY (tenant_id, name) REFERENCES eventbroker.groups ON DELETE CASCADE
);

CREATE INDEX dead_letters_by_time ON eventbroker.dead_letters (tenant_id, name, dead_at, shard, position);
