-- Ways through history for those who list it. Each begins with the tenant and ends with the position, so that a page is
-- read from its place on, in order, without sorting. What an event does not say is in no index and costs its append
-- nothing.

-- The events of a type; those of several types, or of all, are merged from one way for each.
CREATE INDEX events_by_type ON eventbroker.events (tenant_id, event_type, position);

-- The events of one chain of causes.
CREATE INDEX events_by_correlation ON eventbroker.events (tenant_id, correlation_id, position)
WHERE correlation_id <> '';

-- What an event caused: the step down in the tree of causes. The step up goes by the event's id.
CREATE INDEX events_by_cause ON eventbroker.events (tenant_id, (metadata ->> 'caused_by'), position)
WHERE metadata ->> 'caused_by' <> '';

-- What a user did.
CREATE INDEX events_by_user ON eventbroker.events (tenant_id, user_id, position)
WHERE user_id <> '';

-- Aggregates, one entry for each, bytewise whatever the collation of the database is.
CREATE INDEX aggregates ON eventbroker.events (tenant_id, aggregate_type COLLATE "C", aggregate_id COLLATE "C")
WHERE aggregate_version = 1;
