"""What Prometheus is told. Everything is read when it asks; between that nothing is kept but the broker's own numbers.

Labels are event types, groups as `tenant:name` (`*` for a group of all tenants), shards, and methods.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from eventbroker_server.broker.figures import label

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from prometheus_client import Metric

    from eventbroker_server.broker.calls import Calls
    from eventbroker_server.broker.figures import Figures
    from eventbroker_server.broker.histogram import Histogram
    from eventbroker_server.broker.relay import Relay
    from eventbroker_server.broker.subscriptions import Subscriptions

_BUCKETS = (-3, 2, 4)  # from 1 ms to 100 s, four in each power of ten

_DELIVERIES = {
    "delivered": "Deliveries handed to consumers, redeliveries too.",
    "redelivered": "Deliveries handed to consumers after a failed attempt.",
    "acked": "Deliveries acknowledged through this broker.",
    "failed": "Deliveries nacked, or not settled before their deadline.",
    "dead_lettered": "Events given up.",
}


class BrokerCollector(Collector):
    """Reads a broker's numbers."""

    def __init__(self, figures: Figures, calls: Calls, relays: Sequence[Relay], subscriptions: Subscriptions) -> None:
        self._figures = figures
        self._calls = calls
        self._relays = relays
        self._subscriptions = subscriptions

    def collect(self) -> Iterator[Metric]:
        yield from self._rpcs()
        yield from self._events()
        yield from self._shards()
        yield GaugeMetricFamily(
            "eventbroker_streams", "Open streams, and consumers that pull.", self._subscriptions.count
        )
        yield from self._groups()

    def _rpcs(self) -> Iterator[Metric]:
        labels = ["grpc_service", "grpc_method", "grpc_type"]
        started = CounterMetricFamily("grpc_server_started", "Calls that came in.", labels=labels)
        handled = CounterMetricFamily("grpc_server_handled", "Calls that ended.", labels=[*labels, "grpc_code"])
        took = HistogramMetricFamily("grpc_server_handling_seconds", "How long calls took.", labels=labels)
        for calls in self._calls.of.values():
            name = [calls.service, calls.method, calls.kind]
            started.add_metric(name, calls.started)
            for code, count in calls.handled.items():
                handled.add_metric([*name, code], count)
            _add(took, name, calls.took)
        yield from (started, handled, took)

    def _events(self) -> Iterator[Metric]:
        published = CounterMetricFamily("eventbroker_published", "Events stored.", labels=["event_type"])
        latency = HistogramMetricFamily(
            "eventbroker_publish_to_deliver_seconds",
            "From storing an event to first handing it out; without history.",
            labels=["event_type"],
        )
        for event_type, figures in self._figures.types.items():
            published.add_metric([event_type], figures.published)
            _add(latency, [event_type], figures.latency)
        yield from (published, latency)
        for name, help_text in _DELIVERIES.items():
            family = CounterMetricFamily(f"eventbroker_{name}", help_text, labels=["event_type", "group"])
            for pair, deliveries in self._figures.deliveries.items():
                family.add_metric(pair, getattr(deliveries, name))
            yield family

    def _shards(self) -> Iterator[Metric]:
        head = GaugeMetricFamily("eventbroker_head_position", "Position of the newest event.", labels=["shard"])
        lag = GaugeMetricFamily("eventbroker_relay_lag_positions", "Stored and not relayed yet.", labels=["shard"])
        for relay in self._relays:
            head.add_metric([str(relay.shard)], relay.stored_to)
            lag.add_metric([str(relay.shard)], max(0, relay.stored_to - relay.relayed_to))
        yield from (head, lag)

    def _groups(self) -> Iterator[Metric]:
        lag = GaugeMetricFamily(
            "eventbroker_group_lag_positions", "Relayed and not settled, of groups served here.", labels=["group"]
        )
        oldest = GaugeMetricFamily(
            "eventbroker_group_oldest_unsettled_seconds",
            "Age of the oldest event not settled, of groups served here; 0 without one.",
            labels=["group"],
        )
        now = datetime.now(UTC)
        behind: dict[str, int] = {}
        ages: dict[str, float] = {}
        for membership in self._subscriptions.memberships():
            if (progress := membership.progress) is not None:
                group = label(membership.group.key)
                behind[group] = behind.get(group, 0) + max(0, progress.head - progress.settled)
                since = membership.oldest_at or now
                ages[group] = max(ages.get(group, 0.0), (now - since).total_seconds())
        for group, positions in behind.items():
            lag.add_metric([group], positions)
            oldest.add_metric([group], ages[group])
        yield from (lag, oldest)


def _add(family: HistogramMetricFamily, labels: list[str], histogram: Histogram) -> None:
    buckets = [(str(bound), float(count)) for bound, count in histogram.cumulative(*_BUCKETS)]
    family.add_metric(labels, [*buckets, ("+Inf", float(histogram.count))], histogram.total)
