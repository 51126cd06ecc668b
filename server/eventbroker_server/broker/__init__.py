"""The rules: how events are appended, relayed, delivered and settled. Knows no driver and no transport."""
