-- name: installation
SELECT shards, ack_key FROM eventbroker.installation;

-- name: install
INSERT INTO eventbroker.installation (shards, ack_key) VALUES ($1, $2) ON CONFLICT DO NOTHING;

-- name: install_shards
INSERT INTO eventbroker.shard_head (shard)
SELECT generate_series(0, shards - 1) FROM eventbroker.installation
ON CONFLICT DO NOTHING;
