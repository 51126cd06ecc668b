"""What a Python client must be able to do, for the runner: the messages of the contract go in and come out.

tests/conformance/stubs.py is one made of the bare stubs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from eventbroker.v1 import publisher_service_pb2 as publisher_pb
    from eventbroker.v1 import subscriber_service_pb2 as pb


@dataclass
class Refusal(Exception):
    """The broker's no."""

    code: str
    reason: str
    retryable: bool
    fields: list[str] = field(default_factory=list)
    metadata: dict[str, str] = field(default_factory=dict)
    conflicts: list[str] = field(default_factory=list)


class Ended(Exception):
    """A subscription is over for good: "REPLACED", "GROUP_DELETED"."""


class Reject(Exception):
    """Raised by a handler: no attempt can succeed."""


class RetryAfter(Exception):
    """Raised by a handler: RetryAfter(reason, seconds)."""


Handler = Callable[["pb.Delivery"], Awaitable[None]]


class Subscription(Protocol):
    async def next(self) -> pb.Delivery:
        """The next delivery, over reconnects. Raises Ended and Refusal."""

    def close(self) -> None:
        """At once; what is out goes to others."""


class Client(Protocol):
    """Every call is made again while the broker is away or its answer got lost; refused ones raise Refusal."""

    async def publish(self, request: publisher_pb.PublishRequest) -> list[publisher_pb.PublishResult]: ...

    async def subscribe(self, request: pb.SubscribeRequest) -> Subscription: ...

    async def consume(
        self, request: pb.SubscribeRequest, concurrency: int, handle: Handler, drain: asyncio.Event
    ) -> None:
        """Run handlers, whose deadlines are extended, and settle by what they raise; return once `drain` is set and
        what had begun is settled. Raises Ended and Refusal."""

    async def ack(self, ack_ids: list[str]) -> list[int]: ...

    async def nack(self, request: pb.NackRequest) -> list[int]: ...

    async def extend(self, request: pb.ExtendDeadlineRequest) -> list[int]: ...

    async def administer(self, service: str, method: str, request: Any) -> Any:
        """A call of GroupService or DeadLetterService."""
