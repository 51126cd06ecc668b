"""What an event, a name, a filter and an error are. Standard library only, and no I/O."""
