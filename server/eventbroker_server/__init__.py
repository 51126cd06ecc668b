"""The event broker: takes events in over gRPC, keeps them in PostgreSQL, hands them out through Redis Streams."""
