"""Reading what is stored."""
