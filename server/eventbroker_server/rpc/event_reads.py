"""Reading history as a stream, and following it. Events are written by hand: see rpc/wire.py."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from eventbroker.v1 import event_store_service_pb2 as pb
from eventbroker.v1.subscriber_service_pb2 import CaughtUp as CaughtUpMessage

from eventbroker_server.broker.reading import Reading, SignOfLife
from eventbroker_server.broker.subscription import CaughtUp, Farewell
from eventbroker_server.domain.errors import Violation
from eventbroker_server.domain.event import shard_of
from eventbroker_server.domain.group import ALL_TENANTS
from eventbroker_server.domain.names import NAME_RULE, is_name
from eventbroker_server.rpc.auth import PRINCIPAL
from eventbroker_server.rpc.convert import set_time
from eventbroker_server.rpc.event_filter import filter_of
from eventbroker_server.rpc.pages import MAX_BYTES
from eventbroker_server.rpc.rules import moment_of, raise_if_any
from eventbroker_server.rpc.wire import field_tag, sized, varint

if TYPE_CHECKING:
    from collections.abc import Iterator

    import grpc

    from eventbroker_server.broker.reading import Readers, Said
    from eventbroker_server.ports import Codec, EventLog

_MAX_BATCH, _BATCH = 1_000, 500
_MAX_BYTES = MAX_BYTES - 64  # of a batch: less the fields around it
_MIN_RATE, _MAX_RATE = 0.001, 1_000_000.0
_POSITION, _HEAD, _EVENTS = (field_tag(pb.ReadEventsResponse, name) for name in ("position", "head_position", "events"))
_EVENT = field_tag(pb.EventBatch, "events")


class EventReads:
    """Part of EventStoreServicer."""

    _log: EventLog
    _readers: Readers
    _codec: Codec
    _shards: int

    async def ReadEvents(  # noqa: N802 - writes to the context, which cleans up at once
        self,
        request: pb.ReadEventsRequest,
        context: grpc.aio.ServicerContext[pb.ReadEventsRequest, pb.ReadEventsResponse],
    ) -> None:
        reading = await self._reading(request)
        async with self._readers.open(reading) as reader:
            async for said in reader:
                for message in self._messages(said):
                    await context.write(message)  # type: ignore[arg-type] # the door takes bytes as they are

    async def _reading(self, request: pb.ReadEventsRequest) -> Reading:
        principal = PRINCIPAL.get()
        violations: list[Violation] = []
        tenant = request.tenant_id or principal.tenant or ""
        if tenant != ALL_TENANTS and not is_name(tenant):
            violations.append(Violation("tenant_id", f"{NAME_RULE}, or be * for all tenants of a shard"))
        if not 0 <= request.shard < (self._shards if tenant == ALL_TENANTS else 1):
            rule = f"must be from 0 to {self._shards - 1}" if tenant == ALL_TENANTS else "must be 0, but with tenant *"
            violations.append(Violation("shard", rule))
        asked = filter_of(request.filter, violations)
        since = None
        if request.WhichOneof("from") == "recorded_from" and (since := moment_of(request.recorded_from)) is None:
            violations.append(Violation("recorded_from", "must be a moment of the years 1 to 9999"))
        if request.after_position < 0:
            violations.append(Violation("after_position", "must not be negative"))
        if request.upto_position < 0:
            violations.append(Violation("upto_position", "must not be negative"))
        elif 0 < request.upto_position < request.after_position:
            violations.append(Violation("upto_position", "must not be before after_position, or be 0"))
        if request.upto_position and request.follow:
            violations.append(Violation("upto_position", "must be 0 with follow"))
        if (rate := request.max_events_per_second) and not _MIN_RATE <= rate <= _MAX_RATE:
            rule = f"must be from {_MIN_RATE:g} to {_MAX_RATE:,.0f}, or 0"
            violations.append(Violation("max_events_per_second", rule))
        if not 0 <= request.max_batch_events <= _MAX_BATCH:
            violations.append(Violation("max_batch_events", f"must be from 1 to {_MAX_BATCH}, or 0"))
        raise_if_any(violations)
        principal.tenant_for(tenant)
        shard = request.shard if tenant == ALL_TENANTS else shard_of(tenant, self._shards)
        after = request.after_position
        if since is not None:
            after = await self._log.position_before(shard, since)
        most = request.max_batch_events or _BATCH
        return Reading(tenant, shard, asked, after, request.upto_position, request.follow, rate, most)

    def _messages(self, said: Said) -> Iterator[pb.ReadEventsResponse | bytes]:
        """One, or several if the events are more than a client takes at once."""
        what = said.what
        if isinstance(what, list):
            batch: list[bytes] = []
            size = reached = 0
            for stored in what:
                encoded = _EVENT + sized(self._codec.encode(stored))
                if batch and size + len(encoded) > _MAX_BYTES:
                    yield _events(reached, said.head, batch)
                    batch, size = [], 0
                batch.append(encoded)
                size += len(encoded)
                reached = stored.position
            yield _events(said.position, said.head, batch)
            return
        response = pb.ReadEventsResponse(position=said.position, head_position=said.head)
        if isinstance(what, SignOfLife):
            set_time(response.heartbeat.server_time, datetime.now(UTC))
        elif isinstance(what, CaughtUp):
            response.caught_up.CopyFrom(CaughtUpMessage())
        elif isinstance(what, Farewell):
            response.closing.reason = what.reason.value  # type: ignore[assignment] # the numbers are the same
            response.closing.retry_after.FromMilliseconds(int(what.retry_after * 1000))
        yield response


def _events(position: int, head: int, batch: list[bytes]) -> bytes:
    return b"".join((_POSITION, varint(position), _HEAD, varint(head), _EVENTS, sized(b"".join(batch))))
