"""Consuming: streams of deliveries, how they are settled, and consumers that hand them to functions."""
