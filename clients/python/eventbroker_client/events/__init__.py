"""What an event is: its envelope, its data, its type, what caused it, and how it looks on the wire."""
