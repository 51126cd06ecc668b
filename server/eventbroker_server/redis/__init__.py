"""Who has what, now: the relayed tail of the log and the deliveries under way, in Redis Streams. Each step that must be
atomic is one .lua file of this folder. All keys of a shard share its hash tag, so that a shard is one cluster slot."""
