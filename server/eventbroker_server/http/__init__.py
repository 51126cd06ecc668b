"""The broker over HTTP: what Prometheus and an orchestrator ask."""
