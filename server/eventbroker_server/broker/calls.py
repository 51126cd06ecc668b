"""The calls that came in, and how each ended: plain numbers by method. Methods are those that are served, so they are
few."""

from __future__ import annotations

from collections import Counter

from eventbroker_server.broker.histogram import Histogram


class CallsOf:
    """Calls of one method. `kind` is as Prometheus names it: unary, server_stream, bidi_stream."""

    def __init__(self, service: str, method: str, kind: str) -> None:
        self.service = service
        self.method = method
        self.kind = kind
        self.started = 0
        self.handled: Counter[str] = Counter()  # by status code
        self.took = Histogram()

    def ended(self, code: str, seconds: float) -> None:
        self.handled[code] += 1
        self.took.add(seconds)


class Calls:
    """`of` by the full name of a method."""

    def __init__(self) -> None:
        self.of: dict[str, CallsOf] = {}

    def register(self, full_name: str, kind: str) -> CallsOf:
        """The calls of `/service/method`."""
        _, service, method = full_name.split("/")
        return self.of.setdefault(full_name, CallsOf(service, method, kind))
