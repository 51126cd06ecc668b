"""Reading what is stored: single events, lists, history as a stream, aggregates and their snapshots."""
