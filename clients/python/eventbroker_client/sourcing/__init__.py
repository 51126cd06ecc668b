"""Event sourcing: aggregates that are rebuilt from their events, and changed by appending more."""
