-- When the newest event of a shard was recorded: times rise with positions also when the clock is set back.
ALTER TABLE eventbroker.shard_head ADD COLUMN recorded_at timestamptz NOT NULL DEFAULT '-infinity';

UPDATE eventbroker.shard_head AS head
SET recorded_at = event.recorded_at
FROM eventbroker.events AS event
WHERE event.shard = head.shard AND event.position = head.position;
