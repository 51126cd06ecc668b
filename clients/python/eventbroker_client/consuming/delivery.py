"""A delivery: an event that is handed to this consumer, until it is settled or its deadline passes."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from eventbroker.v1 import subscriber_service_pb2 as pb

from eventbroker_client.consuming.settling import ACK, RELEASE, Extend, Nack, reason_of
from eventbroker_client.events.wire import event_of

if TYPE_CHECKING:
    from eventbroker_client.consuming.settling import Outcome, Settler, Verdict
    from eventbroker_client.events.event import Event


class Delivery:
    """Settle it once, with `ack` or `nack`. All of its methods raise Unavailable if the broker does not answer, and
    tell by their outcome whether they came in time."""

    def __init__(self, message: pb.Delivery, settler: Settler) -> None:
        self.ack_id = message.ack_id
        self.attempt = message.attempt
        """1 the first time, one more after each attempt that failed."""
        self.is_replay = message.is_replay
        """Whether a seek made the group get the event again."""
        self.settled = False
        """Whether `ack` or `nack` was called."""
        self._message = message.event
        self._settler = settler

    def __repr__(self) -> str:
        return f"<Delivery of {self.event_type} {self.event_id}, attempt {self.attempt}>"

    @cached_property
    def event(self) -> Event:
        """The event. Raises PayloadMismatch if its data does not fit the class of its type."""
        return event_of(self._message)

    @property
    def event_id(self) -> str:
        return self._message.event_id

    @property
    def event_type(self) -> str:
        return self._message.event_type

    @property
    def key(self) -> tuple[str, str]:
        """What the event is known by: its tenant and id."""
        return (self._message.tenant_id, self._message.event_id)

    @property
    def aggregate(self) -> tuple[str, str, str]:
        """Its tenant, and the type and id of its aggregate."""
        return (self._message.tenant_id, self._message.aggregate_type, self._message.aggregate_id)

    async def ack(self) -> Outcome:
        """The event is done for the group."""
        return await self._settle(ACK)

    async def nack(self, *, delay: float | None = None, reason: str = "", dead_letter: bool = False) -> Outcome:
        """The attempt failed: the event comes again after `delay` seconds, up to 24 h (None: the group's back-off), or,
        with `dead_letter`, never: then a reason is required. Reasons are kept with the attempt, cut to 1,024
        characters. Raises InvalidArgument."""
        if dead_letter:
            return await self._settle(Nack(pb.NACK_ACTION_DEAD_LETTER, reason_of(reason)))
        return await self._settle(Nack(pb.NACK_ACTION_RETRY, reason_of(reason), delay))

    async def release(self) -> Outcome:
        """Gives the event back untried: it goes to any consumer of the group at once, and no attempt is counted."""
        return await self._settle(RELEASE)

    async def extend(self, seconds: float) -> Outcome:
        """Moves the deadline to so many seconds from now: 1 s to 12 h. Raises InvalidArgument."""
        return await self._settler.settle(self.ack_id, Extend(seconds))

    def renew(self, other: Delivery) -> None:
        """The event was handed out again while it is still being handled here: from now on this is that delivery."""
        self.ack_id, self.attempt = other.ack_id, other.attempt

    async def _settle(self, verdict: Verdict) -> Outcome:
        self.settled = True
        return await self._settler.settle(self.ack_id, verdict)
