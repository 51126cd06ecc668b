from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest
from eventbroker.v1 import event_pb2
from eventbroker_server.broker.figures import MOST_GROUPS, MOST_PAIRS, MOST_TYPES, OTHER, Figures, label
from eventbroker_server.broker.histogram import Histogram
from eventbroker_server.domain.event import StoredEvent
from eventbroker_server.domain.group import GroupKey
from eventbroker_server.rpc.convert import EventCodec, event_of

from tests.client import event

WIDTH = 10 ** (1 / 24)
CODEC = EventCodec()
RECORDED = datetime(2026, 7, 8, 9, 10, 11, tzinfo=UTC)


def filled(durations: list[float]) -> Histogram:
    histogram = Histogram()
    for seconds in durations:
        histogram.add(seconds)
    return histogram


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99, 1.0])
@pytest.mark.parametrize("count", [1, 7, 100, 4_000])
def test_percentile_is_at_most_one_bucket_above_the_truth(share: float, count: int) -> None:
    durations = sorted(random.Random(count).lognormvariate(-5, 2) for _ in range(count))
    truth = durations[max(0, -(-int(share * 100) * count // 100) - 1)]
    percentile = filled(durations).percentile(share)
    assert percentile is not None
    assert truth * 0.999 <= percentile <= truth * WIDTH * 1.001


def test_average_is_exact_and_of_nothing_there_is_none() -> None:
    assert filled([1.0, 2.0, 6.0]).average == 3.0
    assert Histogram().average is None
    assert Histogram().percentile(0.99) is None


def test_durations_beyond_all_buckets_are_counted() -> None:
    histogram = filled([-1.0, 0.0, 1e-9, 1e9])
    assert histogram.count == 4
    assert histogram.total == pytest.approx(1e9)
    assert histogram.percentile(0.75) == 1e-5


def test_cumulative_counts_are_exact_at_their_bounds() -> None:
    durations = [random.Random(3).lognormvariate(-3, 3) for _ in range(1_000)]
    cumulative = filled(durations).cumulative(-3, 2, 4)
    assert [bound for bound, _ in cumulative][::4] == [0.001, 0.01, 0.1, 1.0, 10.0, 100.0]
    assert [count for _, count in cumulative] == [sum(d <= bound for d in durations) for bound, _ in cumulative]


def test_types_and_groups_beyond_the_bound_are_counted_together() -> None:
    figures = Figures(CODEC)
    for number in range(MOST_TYPES + 5):
        figures.of(f"t{number}", "acme:g").delivered += 1
    for number in range(MOST_GROUPS + 5):
        figures.of("t0", f"acme:g{number}").delivered += 1
    assert len(figures.types) == MOST_TYPES + 1
    assert figures.of(OTHER, "acme:g").delivered == 5
    assert figures.of("t0", OTHER).delivered == 6
    assert sum(deliveries.delivered for deliveries in figures.deliveries.values()) == MOST_TYPES + MOST_GROUPS + 10


def test_pairs_of_type_and_group_are_bounded() -> None:
    figures = Figures(CODEC)
    for number in range(200):
        for group in range(200):
            figures.of(f"t{number}", f"acme:g{group}").acked += 1
    assert len(figures.deliveries) <= MOST_PAIRS + MOST_TYPES
    assert sum(deliveries.acked for deliveries in figures.deliveries.values()) == 200 * 200


def test_ephemeral_groups_are_counted_together() -> None:
    assert label(GroupKey("acme", "~1")) == label(GroupKey("acme", "~2")) == "acme:~"
    assert label(GroupKey("acme", "billing")) == "acme:billing"


def relayed(micros: int, **fields: str) -> bytes:
    published = event_of(event(**fields), "event", 1 << 20, [])
    assert published is not None
    return CODEC.encode(StoredEvent(published, 7, 3, RECORDED + timedelta(microseconds=micros)))


@pytest.mark.parametrize("event_id", ["e", "e" * 127, "e" * 128, "é" * 256])
@pytest.mark.parametrize("event_type", ["a", "user.created", "t" * 127, "t" * 128])
def test_type_is_that_of_the_parsed_event(event_id: str, event_type: str) -> None:
    body = relayed(0, event_id=event_id, event_type=event_type)
    assert CODEC.type_of(body) == event_pb2.Event.FromString(body).event_type == event_type


# 2,393 µs: the bytes of these nanos end as the tag of the field begins.
@pytest.mark.parametrize("micros", [0, 1, 2_393, 999_999, *(random.Random(1).randrange(1_000_000) for _ in range(200))])
def test_record_time_is_that_of_the_parsed_event(micros: int) -> None:
    body = relayed(micros)
    parsed = event_pb2.Event.FromString(body).record_time.ToMicroseconds() / 1e6
    assert CODEC.record_time(body) == pytest.approx(parsed, abs=1e-6)


def test_type_and_time_are_found_whatever_the_order_of_the_fields() -> None:
    whole = event_pb2.Event.FromString(relayed(5, event_id="e1", event_type="user.created"))
    fields = [event_pb2.Event(**{field.name: value}).SerializeToString() for field, value in whole.ListFields()]
    for seed in range(50):
        random.Random(seed).shuffle(fields)
        body = b"".join(fields)
        assert CODEC.type_of(body) == "user.created"
        assert CODEC.record_time(body) == pytest.approx(RECORDED.timestamp() + 5e-6, abs=1e-6)
