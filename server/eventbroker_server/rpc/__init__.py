"""The door: protobuf and gRPC on one side, the rules on the other. Nothing is decided here."""
