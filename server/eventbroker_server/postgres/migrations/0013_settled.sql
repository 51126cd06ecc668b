-- A checkpoint is one position, and one event that takes long holds it back: beside it, what is settled beyond.
ALTER TABLE eventbroker.group_shards ADD COLUMN settled int8multirange NOT NULL DEFAULT '{}';
