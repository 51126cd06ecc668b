-- Snapshots of aggregates: what their events up to a version come to, as whoever saved one told it.

CREATE TABLE eventbroker.snapshots (
    tenant_id      text NOT NULL,
    aggregate_type text NOT NULL,
    aggregate_id   text NOT NULL,
    version        bigint NOT NULL CHECK (version > 0),
    form           smallint NOT NULL, -- as with events
    content_type   text NOT NULL,
    content        bytea NOT NULL,
    created_at     timestamptz NOT NULL,
    CONSTRAINT snapshots_version PRIMARY KEY (tenant_id, aggregate_type, aggregate_id, version)
);

-- With the columns of the document that this broker was asked from; data as in the view event_store.
CREATE VIEW eventbroker.event_snapshots AS
SELECT
    md5(concat_ws(' ', tenant_id, aggregate_type, version, aggregate_id))::uuid AS id,
    aggregate_id,
    aggregate_type,
    tenant_id,
    version,
    coalesce(
        CASE WHEN form = 1 THEN eventbroker.try_jsonb(content) END,
        jsonb_build_object(
            CASE form WHEN 2 THEN '@type' ELSE '@content_type' END,
            CASE form WHEN 1 THEN 'application/json' ELSE content_type END,
            '@base64',
            translate(encode(content, 'base64'), E'\n', '')
        )
    ) AS snapshot_data,
    created_at
FROM eventbroker.snapshots;
