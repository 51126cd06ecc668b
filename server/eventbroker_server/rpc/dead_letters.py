"""DeadLetterService."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from eventbroker.v1 import dead_letter_service_pb2 as pb
from eventbroker.v1.dead_letter_service_pb2_grpc import DeadLetterServiceServicer

from eventbroker_server.domain.dead_letter import DeadLetterPlace
from eventbroker_server.domain.errors import DeadLetterNotFound, GroupNotFound, Violation
from eventbroker_server.domain.group import GroupKey
from eventbroker_server.domain.names import ID_RULE, NAME_RULE, is_id, is_name
from eventbroker_server.rpc import pages
from eventbroker_server.rpc.auth import PRINCIPAL
from eventbroker_server.rpc.convert import EPOCH, event_message, set_time
from eventbroker_server.rpc.dead_letter_filter import filter_of
from eventbroker_server.rpc.rules import check_name, raise_if_any, tenant_of

if TYPE_CHECKING:
    import grpc

    from eventbroker_server.domain.dead_letter import DeadLetter
    from eventbroker_server.ports import DeadLetterStore, EventLog, GroupStore

MAX_REDRIVE, DEFAULT_REDRIVE = 100_000, 10_000
MIN_RATE, MAX_RATE = 0.1, 100_000.0

_Request = (
    pb.ListDeadLettersRequest | pb.GetDeadLetterRequest | pb.RedriveDeadLettersRequest | pb.DeleteDeadLettersRequest
)


class DeadLetterServicer(DeadLetterServiceServicer):
    def __init__(self, dead_letters: DeadLetterStore, groups: GroupStore, event_log: EventLog) -> None:
        self._dead_letters = dead_letters
        self._groups = groups
        self._log = event_log

    async def ListDeadLetters(  # noqa: N802 - the name of the RPC
        self,
        request: pb.ListDeadLettersRequest,
        context: grpc.aio.ServicerContext[pb.ListDeadLettersRequest, pb.ListDeadLettersResponse],
    ) -> pb.ListDeadLettersResponse:
        tenant, violations = _addressed(request)
        wanted = filter_of(request.filter, tenant, violations)
        count = pages.size_of(request, violations)
        place = pages.place_of(request, violations, int, int, int)
        raise_if_any(violations)
        key = await self._group(tenant, request)
        before = DeadLetterPlace(EPOCH + timedelta(microseconds=place[0]), *place[1:]) if place else None
        found = await self._dead_letters.page(key, wanted, before, count + 1)
        return pb.ListDeadLettersResponse(
            dead_letters=map(_message, found[:count]),
            next_page_token=_token(request, found[count - 1].place) if len(found) > count else "",
        )

    async def GetDeadLetter(  # noqa: N802 - the name of the RPC
        self,
        request: pb.GetDeadLetterRequest,
        context: grpc.aio.ServicerContext[pb.GetDeadLetterRequest, pb.GetDeadLetterResponse],
    ) -> pb.GetDeadLetterResponse:
        tenant, violations = _addressed(request)
        event_tenant = request.event_tenant_id or tenant
        if not event_tenant or (request.event_tenant_id and not is_name(event_tenant)):
            violations.append(Violation("event_tenant_id", NAME_RULE))
        if not is_id(request.event_id):
            violations.append(Violation("event_id", ID_RULE))
        raise_if_any(violations)
        key = await self._group(tenant, request)
        found = await self._dead_letters.find(key, (event_tenant, request.event_id))
        stored = await self._log.find((event_tenant, request.event_id)) if found else None
        if found is None or stored is None:
            raise DeadLetterNotFound(key.name, [request.event_id])
        response = pb.GetDeadLetterResponse(dead_letter=_message(found), event=event_message(stored))
        for failed in found.history:
            told = response.history.add(attempt=failed.attempt, consumer=failed.consumer, error=failed.error)
            set_time(told.at, failed.at)
        return response

    async def RedriveDeadLetters(  # noqa: N802 - the name of the RPC
        self,
        request: pb.RedriveDeadLettersRequest,
        context: grpc.aio.ServicerContext[pb.RedriveDeadLettersRequest, pb.RedriveDeadLettersResponse],
    ) -> pb.RedriveDeadLettersResponse:
        tenant, violations = _addressed(request)
        wanted = filter_of(request.filter, tenant, violations, explicit=True)
        if not 0 <= request.max_events <= MAX_REDRIVE:
            violations.append(Violation("max_events", f"must be 1 to {MAX_REDRIVE}, or 0"))
        rate = request.events_per_second
        if rate != 0 and not MIN_RATE <= rate <= MAX_RATE:
            violations.append(Violation("events_per_second", f"must be {MIN_RATE:g} to {MAX_RATE:.0f}, or 0"))
        raise_if_any(violations)
        key = await self._group(tenant, request)
        most = request.max_events or DEFAULT_REDRIVE
        redriven = await self._dead_letters.redrive(key, wanted, most, rate, dry_run=request.dry_run)
        return pb.RedriveDeadLettersResponse(redriven=redriven.moved, remaining=redriven.remaining)

    async def DeleteDeadLetters(  # noqa: N802 - the name of the RPC
        self,
        request: pb.DeleteDeadLettersRequest,
        context: grpc.aio.ServicerContext[pb.DeleteDeadLettersRequest, pb.DeleteDeadLettersResponse],
    ) -> pb.DeleteDeadLettersResponse:
        tenant, violations = _addressed(request)
        wanted = filter_of(request.filter, tenant, violations, explicit=True)
        raise_if_any(violations)
        key = await self._group(tenant, request)
        return pb.DeleteDeadLettersResponse(
            deleted=await self._dead_letters.delete(key, wanted, dry_run=request.dry_run)
        )

    async def _group(self, tenant: str, request: _Request) -> GroupKey:
        """Raises TenantForbidden, GroupNotFound."""
        PRINCIPAL.get().tenant_for(tenant)
        key = GroupKey.of(tenant, request.group)
        if await self._groups.find(key) is None:
            raise GroupNotFound(key.name, key.tenant_id)
        return key


def _addressed(request: _Request) -> tuple[str, list[Violation]]:
    """The tenant of the group, empty for all of them, and what is wrong with the names."""
    violations: list[Violation] = []
    check_name(request.group, "group", violations)
    return tenant_of(request.tenant_id, violations, optional=True), violations


def _message(dead: DeadLetter) -> pb.DeadLetter:
    message = pb.DeadLetter(
        event_id=dead.event_id,
        event_type=dead.event_type,
        aggregate_type=dead.aggregate_type,
        aggregate_id=dead.aggregate_id,
        event_tenant_id=dead.event_tenant_id,
        shard=dead.shard,
        position=dead.position,
        attempts=dead.attempts,
        reason=dead.reason,
        rejected=dead.rejected,
    )
    set_time(message.dead_at, dead.dead_at)
    return message


def _token(request: pb.ListDeadLettersRequest, last: DeadLetterPlace) -> str:
    return pages.token_of(request, (last.dead_at - EPOCH) // timedelta(microseconds=1), last.shard, last.position)
