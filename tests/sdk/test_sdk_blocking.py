"""The blocking publisher, on a channel without a broker."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
import grpc_testing
import pytest
from eventbroker.v1 import publisher_service_pb2 as pb
from eventbroker_client import BlockingPublisher, Event, EventIdReused, Expect, Unavailable
from eventbroker_server.domain import errors as of_the_server
from eventbroker_server.rpc.status import status_of

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVICE = pb.DESCRIPTOR.services_by_name["PublisherService"]
PUBLISH = SERVICE.methods_by_name["Publish"]
STORED = pb.PublishResponse(
    results=[pb.PublishResult(event_id="e1", outcome=pb.PUBLISH_OUTCOME_STORED, position=7, aggregate_version=2)]
)


@pytest.fixture
def channel() -> Any:
    return grpc_testing.channel([SERVICE], grpc_testing.strict_real_time())


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as pool:
        yield pool


def event() -> Event:
    return Event("a.b", "A", "a1", {"k": 1}, id="e1")


def test_it_publishes_with_its_token_and_its_tenant(channel: Any, pool: ThreadPoolExecutor) -> None:
    publisher = BlockingPublisher(channel, tenant="acme", source="shop", token="secret")  # noqa: S106
    publishing = pool.submit(publisher.publish_many, [event()], expect=[Expect("A", "a1", version=1)])
    metadata, request, call = channel.take_unary_unary(PUBLISH)
    assert ("authorization", "Bearer secret") in metadata
    (sent,) = request.events
    assert (sent.tenant_id, sent.metadata.source, sent.json) == ("acme", "shop", '{"k":1}')
    assert request.mode == pb.PUBLISH_MODE_ALL_OR_NONE
    assert request.expectations[0].version == 1
    call.terminate(STORED, (), grpc.StatusCode.OK, "")
    (published,) = publishing.result()
    assert (published.event_id, published.position, published.aggregate_version) == ("e1", 7, 2)


def test_what_failed_on_the_way_is_sent_again_as_it_was(channel: Any, pool: ThreadPoolExecutor) -> None:
    publishing = pool.submit(BlockingPublisher(channel).publish, event())
    _, first, call = channel.take_unary_unary(PUBLISH)
    call.terminate(None, (), grpc.StatusCode.UNAVAILABLE, "gone")
    _, second, call = channel.take_unary_unary(PUBLISH)
    assert first == second
    call.terminate(STORED, (), grpc.StatusCode.OK, "")
    assert publishing.result().position == 7


def test_what_is_refused_is_raised_with_its_reason(channel: Any, pool: ThreadPoolExecutor) -> None:
    publishing = pool.submit(BlockingPublisher(channel).publish, event())
    _, _, call = channel.take_unary_unary(PUBLISH)
    status: Any = status_of(of_the_server.EventIdReused(event_id="e1"))
    call.terminate(None, status.trailing_metadata, status.code, status.details)
    with pytest.raises(EventIdReused) as caught:
        publishing.result()
    assert caught.value.metadata == {"event_id": "e1"}


def test_after_its_time_the_outcome_is_unknown(channel: Any, pool: ThreadPoolExecutor) -> None:
    publishing = pool.submit(BlockingPublisher(channel).publish, event(), timeout=0)
    _, _, call = channel.take_unary_unary(PUBLISH)
    call.terminate(None, (), grpc.StatusCode.UNAVAILABLE, "gone")
    with pytest.raises(Unavailable, match="gone"):
        publishing.result()
