"""PublisherService."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from eventbroker.v1 import publisher_service_pb2 as pb
from eventbroker.v1.publisher_service_pb2_grpc import PublisherServiceServicer

from eventbroker_server.broker.append import Stored
from eventbroker_server.broker.decide import Expectation
from eventbroker_server.domain.errors import BrokerError, InvalidArgument, Violation
from eventbroker_server.domain.names import ID_RULE, NAME_RULE, is_id, is_name
from eventbroker_server.rpc.auth import PRINCIPAL
from eventbroker_server.rpc.convert import event_of
from eventbroker_server.rpc.publish_stream import Pipeline, publish_error
from eventbroker_server.rpc.rules import raise_if_any

if TYPE_CHECKING:
    from collections.abc import Sequence

    import grpc
    from eventbroker.v1.event_pb2 import Event as Message

    from eventbroker_server.broker.publishing import Publishing
    from eventbroker_server.domain.event import Event
    from eventbroker_server.rpc.publish_stream import PublishStreams

_MODES = pb.PublishMode.values()


@dataclass(frozen=True, slots=True)
class PublishLimits:
    """Events and bytes in a call, bytes in an event."""

    events: int
    call_bytes: int
    event_bytes: int


class PublisherServicer(PublisherServiceServicer):
    def __init__(self, publishing: Publishing, limits: PublishLimits, streams: PublishStreams) -> None:
        self._publishing = publishing
        self._limits = limits
        self._streams = streams

    async def Publish(  # noqa: N802 - the name of the RPC
        self, request: pb.PublishRequest, context: grpc.aio.ServicerContext[pb.PublishRequest, pb.PublishResponse]
    ) -> pb.PublishResponse:
        return await self._publish(request)

    async def PublishStream(  # type: ignore[override] # noqa: N802 - reads from the context, and writes to it
        self,
        request_iterator: object,
        context: grpc.aio.ServicerContext[pb.PublishStreamRequest, pb.PublishStreamResponse],
    ) -> None:
        async with self._streams.open() as ending:
            await Pipeline(self._publish, context, ending).run()

    async def _publish(self, request: pb.PublishRequest) -> pb.PublishResponse:
        principal = PRINCIPAL.get()
        self._check_size(request)
        request.DiscardUnknownFields()  # they could not be stored
        violations: list[Violation] = []
        if request.mode not in _MODES:
            violations.append(Violation("mode", "is not a PublishMode"))
        if request.mode == pb.PUBLISH_MODE_PER_EVENT:
            if request.expectations:
                violations.append(Violation("expectations", "cannot be used with PUBLISH_MODE_PER_EVENT"))
            raise_if_any(violations)
            return await self._publish_each(request)
        events = self._events(request, violations)
        expectations = _expectations(request, events, violations)
        raise_if_any(violations)
        stored = await self._publishing.publish(principal, events, expectations)
        return _answer(request, stored)

    def _check_size(self, request: pb.PublishRequest) -> None:
        count, size = len(request.events), request.ByteSize()
        if not 1 <= count <= self._limits.events:
            raise InvalidArgument([Violation("events", f"must be 1 to {self._limits.events}, not {count}")])
        if size > self._limits.call_bytes:
            rule = f"must be at most {self._limits.call_bytes} bytes together, not {size}"
            raise InvalidArgument([Violation("events", rule)])

    def _events(self, request: pb.PublishRequest, violations: list[Violation]) -> list[Event]:
        tenant = request.events[0].tenant_id
        faults: list[Violation] = []
        events = [event for message in request.events if (event := self._event(message, "", faults)) is not None]
        if not faults and len({event.event_id for event in events if event.tenant_id == tenant}) == len(events):
            return events
        # Something is wrong: look again, and name it.
        first: dict[str, int] = {}
        for number, message in enumerate(request.events):
            path = f"events[{number}]"
            self._event(message, path, violations)
            if first.setdefault(message.event_id, number) != number and message.event_id:
                violations.append(Violation(f"{path}.event_id", f"repeats events[{first[message.event_id]}].event_id"))
            if message.tenant_id != tenant:
                rule = "must be that of events[0]; events of several tenants need PUBLISH_MODE_PER_EVENT"
                violations.append(Violation(f"{path}.tenant_id", rule))
        return events

    def _event(self, message: Message, path: str, violations: list[Violation]) -> Event | None:
        return event_of(message, path, self._limits.event_bytes, violations)

    async def _publish_each(self, request: pb.PublishRequest) -> pb.PublishResponse:
        refused: list[InvalidArgument | None] = []
        events: list[Event] = []
        first: dict[tuple[str, str], int] = {}
        for number, message in enumerate(request.events):
            path = f"events[{number}]"
            violations: list[Violation] = []
            event = self._event(message, path, violations)
            if event is not None and first.setdefault(event.key, number) != number:
                violations.append(Violation(f"{path}.event_id", f"repeats events[{first[event.key]}].event_id"))
            if event is None or violations:
                refused.append(InvalidArgument(violations))
            else:
                refused.append(None)
                events.append(event)
        outcomes = iter(await self._publishing.publish_each(PRINCIPAL.get(), events))
        return _answer(request, [refusal or next(outcomes) for refusal in refused])


def _expectations(
    request: pb.PublishRequest, events: Sequence[Event], violations: list[Violation]
) -> list[Expectation]:
    tenant = request.events[0].tenant_id
    seen: set[tuple[str, str]] = set()
    expectations = []
    for number, message in enumerate(request.expectations):
        path = f"expectations[{number}]"
        if not is_name(message.aggregate_type):
            violations.append(Violation(f"{path}.aggregate_type", NAME_RULE))
        if not is_id(message.aggregate_id):
            violations.append(Violation(f"{path}.aggregate_id", ID_RULE))
        if (aggregate := (message.aggregate_type, message.aggregate_id)) in seen:
            violations.append(Violation(path, "names an aggregate for the second time"))
        seen.add(aggregate)
        expected = message.WhichOneof("expected")
        if expected is None:
            violations.append(Violation(f"{path}.expected", "is required: one of version, exists"))
        if message.version < 0:
            violations.append(Violation(f"{path}.version", "must not be negative"))
        expectations.append(
            Expectation(
                (tenant, *aggregate),
                version=message.version if expected == "version" else None,
                exists=message.exists if expected == "exists" else None,
            )
        )
    return expectations


def _answer(request: pb.PublishRequest, outcomes: Sequence[Stored | BrokerError]) -> pb.PublishResponse:
    response = pb.PublishResponse()
    add = response.results.add  # half of what messages cost that are made first, and then copied into the answer
    for message, outcome in zip(request.events, outcomes, strict=True):
        if isinstance(outcome, BrokerError):
            add(event_id=message.event_id, outcome=pb.PUBLISH_OUTCOME_REFUSED, error=publish_error(outcome))
            continue
        add(
            event_id=message.event_id,
            outcome=pb.PUBLISH_OUTCOME_DUPLICATE if outcome.duplicate else pb.PUBLISH_OUTCOME_STORED,
            position=outcome.event.position,
            aggregate_version=outcome.event.aggregate_version,
        )
    return response
