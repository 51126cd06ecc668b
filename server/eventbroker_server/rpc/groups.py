"""GroupService."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from eventbroker.v1 import group_service_pb2 as pb
from eventbroker.v1 import subscriber_service_pb2
from eventbroker.v1.group_service_pb2_grpc import GroupServiceServicer

from eventbroker_server.domain.errors import Violation
from eventbroker_server.domain.filter import TypeFilter
from eventbroker_server.domain.group import Group, GroupChange, GroupKey
from eventbroker_server.domain.names import ID_RULE, NAME_RULE, is_id, is_name
from eventbroker_server.domain.point import AfterPosition, AtTime, Edge
from eventbroker_server.domain.retry import RetryPolicy
from eventbroker_server.rpc import pages
from eventbroker_server.rpc.auth import PRINCIPAL
from eventbroker_server.rpc.conditions import CONDITIONS, condition, conditions_of
from eventbroker_server.rpc.explain import explained
from eventbroker_server.rpc.limits import limits_of
from eventbroker_server.rpc.rules import check_name, check_patterns, moment_of, raise_if_any, seconds_of
from eventbroker_server.rpc.wish import MAX_DEADLINE, MIN_DEADLINE

if TYPE_CHECKING:
    import grpc
    from google.protobuf.duration_pb2 import Duration

    from eventbroker_server.broker.explain import Explainer
    from eventbroker_server.broker.groups import Groups, Standing
    from eventbroker_server.domain.point import LogPoint

_HOUR, _DAY = 3600.0, 86_400.0
_DEFAULT_RETRY = RetryPolicy()
_DEFAULT_RETENTION = 30 * _DAY
_MASKABLE = ("event_types", "ack_deadline", "retry_policy", "dead_letter_policy", *CONDITIONS, "limits")
_HOLD_RULE = "must be false, unless the group's ordering is ORDERING_BY_AGGREGATE"
_MIN_RATE, _MAX_RATE = 0.1, 100_000.0
_EDGES = {
    subscriber_service_pb2.START_POINT_EARLIEST: Edge.EARLIEST,
    subscriber_service_pb2.START_POINT_LATEST: Edge.LATEST,
}

_Named = (
    pb.CreateGroupRequest
    | pb.GetGroupRequest
    | pb.UpdateGroupRequest
    | pb.PauseGroupRequest
    | pb.ResumeGroupRequest
    | pb.SeekGroupRequest
    | pb.DeleteGroupRequest
    | pb.ExplainDeliveryRequest
    | pb.WaitForGroupRequest
)


class GroupServicer(GroupServiceServicer):
    """`default_ack_deadline`, in seconds, is that of a group that does not say."""

    def __init__(self, groups: Groups, explainer: Explainer, default_ack_deadline: float) -> None:
        self._groups = groups
        self._explainer = explainer
        self._default_ack_deadline = default_ack_deadline

    async def CreateGroup(  # noqa: N802 - the name of the RPC
        self,
        request: pb.CreateGroupRequest,
        context: grpc.aio.ServicerContext[pb.CreateGroupRequest, pb.CreateGroupResponse],
    ) -> pb.CreateGroupResponse:
        violations = _name_faults(request)
        patterns = _filter(request, violations)
        conditions = conditions_of(request, violations)
        limits = limits_of(request, violations)
        deadline = self._ack_deadline(request, violations)
        retry = _retry(request, violations)
        retention = _retention(request, violations)
        ordered, fair = _ordered(request, violations), _fair(request, violations)
        if request.dead_letter_policy.hold_aggregate and not ordered:
            violations.append(Violation("dead_letter_policy.hold_aggregate", _HOLD_RULE))
        start: LogPoint = Edge.EARLIEST
        if request.HasField("start"):
            start = _point(request.start, "start", violations)
        raise_if_any(violations)
        group = Group(
            _key(request),
            patterns,
            deadline,
            retry,
            retention,
            conditions=conditions,
            limits=limits,
            ordered=ordered,
            fair=fair,
            hold=request.dead_letter_policy.hold_aggregate,
        )
        return pb.CreateGroupResponse(group=_message(await self._groups.create(group, start)))

    async def GetGroup(  # noqa: N802 - the name of the RPC
        self, request: pb.GetGroupRequest, context: grpc.aio.ServicerContext[pb.GetGroupRequest, pb.GetGroupResponse]
    ) -> pb.GetGroupResponse:
        group = await self._groups.get(_checked_key(request))
        return pb.GetGroupResponse(group=_message(group), status=_status(await self._groups.standing(group)))

    async def ListGroups(  # noqa: N802 - the name of the RPC
        self,
        request: pb.ListGroupsRequest,
        context: grpc.aio.ServicerContext[pb.ListGroupsRequest, pb.ListGroupsResponse],
    ) -> pb.ListGroupsResponse:
        violations: list[Violation] = []
        check_name(request.tenant_id, "tenant_id", violations, optional=True)
        size = pages.size_of(request, violations)
        after = pages.place_of(request, violations, str)
        raise_if_any(violations)
        tenant = PRINCIPAL.get().tenant_for(request.tenant_id)
        found = await self._groups.list_groups(tenant, after[0] if after else "", size + 1)
        response = pb.ListGroupsResponse(groups=map(_message, found[:size]))
        if len(found) > size:
            response.next_page_token = pages.token_of(request, found[size - 1].key.name)
        return response

    async def UpdateGroup(  # noqa: N802 - the name of the RPC
        self,
        request: pb.UpdateGroupRequest,
        context: grpc.aio.ServicerContext[pb.UpdateGroupRequest, pb.UpdateGroupResponse],
    ) -> pb.UpdateGroupResponse:
        violations = _name_faults(request)
        paths = set(request.update_mask.paths)
        if not paths or paths - set(_MASKABLE):
            wrong = ", ".join(sorted(paths - set(_MASKABLE)))
            rule = f"must name one or more of {', '.join(_MASKABLE)}" + (f"; not {wrong}" if wrong else "")
            violations.append(Violation("update_mask", rule))
        change = GroupChange(
            filter=_filter(request, violations) if "event_types" in paths else None,
            ack_deadline=self._ack_deadline(request, violations) if "ack_deadline" in paths else None,
            retry=_retry(request, violations) if "retry_policy" in paths else None,
            dead_letter_retention=_retention(request, violations) if "dead_letter_policy" in paths else None,
            hold=request.dead_letter_policy.hold_aggregate if "dead_letter_policy" in paths else None,
            sources=condition(request, "sources", violations) if "sources" in paths else None,
            aggregate_types=condition(request, "aggregate_types", violations) if "aggregate_types" in paths else None,
            tags=condition(request, "tags", violations) if "tags" in paths else None,
            limits=limits_of(request, violations) if "limits" in paths else None,
        )
        raise_if_any(violations)
        if change.hold and not (await self._groups.get(_key(request))).ordered:
            raise_if_any([Violation("dead_letter_policy.hold_aggregate", _HOLD_RULE)])
        return pb.UpdateGroupResponse(group=_message(await self._groups.update(_key(request), change)))

    async def PauseGroup(  # noqa: N802 - the name of the RPC
        self,
        request: pb.PauseGroupRequest,
        context: grpc.aio.ServicerContext[pb.PauseGroupRequest, pb.PauseGroupResponse],
    ) -> pb.PauseGroupResponse:
        group = await self._groups.pause(_checked_key(request), paused=True)
        return pb.PauseGroupResponse(group=_message(group))

    async def ResumeGroup(  # noqa: N802 - the name of the RPC
        self,
        request: pb.ResumeGroupRequest,
        context: grpc.aio.ServicerContext[pb.ResumeGroupRequest, pb.ResumeGroupResponse],
    ) -> pb.ResumeGroupResponse:
        group = await self._groups.pause(_checked_key(request), paused=False)
        return pb.ResumeGroupResponse(group=_message(group))

    async def SeekGroup(  # noqa: N802 - the name of the RPC
        self,
        request: pb.SeekGroupRequest,
        context: grpc.aio.ServicerContext[pb.SeekGroupRequest, pb.SeekGroupResponse],
    ) -> pb.SeekGroupResponse:
        violations = _name_faults(request)
        to = _point(request.to, "to", violations)
        rate = request.max_events_per_second
        if rate != 0 and not _MIN_RATE <= rate <= _MAX_RATE:
            violations.append(Violation("max_events_per_second", f"must be {_MIN_RATE:g} to {_MAX_RATE:.0f}, or 0"))
        raise_if_any(violations)
        sought = await self._groups.seek(_key(request), to, rate, dry_run=request.dry_run)
        return pb.SeekGroupResponse(events_again=sought.again, events_skipped=sought.skipped)

    async def DeleteGroup(  # noqa: N802 - the name of the RPC
        self,
        request: pb.DeleteGroupRequest,
        context: grpc.aio.ServicerContext[pb.DeleteGroupRequest, pb.DeleteGroupResponse],
    ) -> pb.DeleteGroupResponse:
        await self._groups.delete(_checked_key(request), force=request.force)
        return pb.DeleteGroupResponse()

    async def ExplainDelivery(  # noqa: N802 - the name of the RPC
        self,
        request: pb.ExplainDeliveryRequest,
        context: grpc.aio.ServicerContext[pb.ExplainDeliveryRequest, pb.ExplainDeliveryResponse],
    ) -> pb.ExplainDeliveryResponse:
        violations = _name_faults(request)
        tenant = _event_tenant(request, violations)
        if not is_id(request.event_id):
            violations.append(Violation("event_id", ID_RULE))
        raise_if_any(violations)
        return explained(await self._explainer.explain(_key(request), (tenant, request.event_id)))

    async def WaitForGroup(  # noqa: N802 - the name of the RPC
        self,
        request: pb.WaitForGroupRequest,
        context: grpc.aio.ServicerContext[pb.WaitForGroupRequest, pb.WaitForGroupResponse],
    ) -> pb.WaitForGroupResponse:
        violations = _name_faults(request)
        tenant = _event_tenant(request, violations)
        if request.position < 1:
            violations.append(Violation("position", "must be from 1"))
        timeout = 10.0
        if request.HasField("timeout"):
            timeout = seconds_of(request.timeout, "timeout", 0, 60, violations)
        raise_if_any(violations)
        reached, settled = await self._explainer.wait(_key(request), tenant, request.position, timeout)
        return pb.WaitForGroupResponse(reached=reached, settled_position=settled)

    def _ack_deadline(
        self, request: pb.CreateGroupRequest | pb.UpdateGroupRequest, violations: list[Violation]
    ) -> float:
        if not request.HasField("ack_deadline"):
            return self._default_ack_deadline
        return seconds_of(request.ack_deadline, "ack_deadline", MIN_DEADLINE, MAX_DEADLINE, violations)


def _name_faults(request: _Named) -> list[Violation]:
    violations: list[Violation] = []
    check_name(request.name, "name", violations)
    check_name(request.tenant_id, "tenant_id", violations, optional=True)
    return violations


def _key(request: _Named) -> GroupKey:
    """Raises TenantForbidden."""
    return GroupKey.of(PRINCIPAL.get().tenant_for(request.tenant_id), request.name)


def _event_tenant(request: pb.ExplainDeliveryRequest | pb.WaitForGroupRequest, violations: list[Violation]) -> str:
    """The tenant whose events are meant, which must be one that the caller may see."""
    tenant = PRINCIPAL.get().tenant_for(request.event_tenant_id or request.tenant_id)
    if not is_name(tenant):
        violations.append(Violation("event_tenant_id", f"{NAME_RULE}; for a group of all tenants it is required"))
    return tenant


def _checked_key(request: _Named) -> GroupKey:
    raise_if_any(_name_faults(request))
    return _key(request)


def _filter(request: pb.CreateGroupRequest | pb.UpdateGroupRequest, violations: list[Violation]) -> TypeFilter:
    check_patterns(request.event_types, "event_types", violations)
    return TypeFilter.of(*request.event_types)


def _retry(request: pb.CreateGroupRequest | pb.UpdateGroupRequest, violations: list[Violation]) -> RetryPolicy:
    policy, path, default = request.retry_policy, "retry_policy", _DEFAULT_RETRY
    initial, maximum, before = default.initial, default.maximum, len(violations)
    if policy.HasField("initial_backoff"):
        initial = seconds_of(policy.initial_backoff, f"{path}.initial_backoff", 0.1, _HOUR, violations)
    if policy.HasField("maximum_backoff"):
        maximum = seconds_of(policy.maximum_backoff, f"{path}.maximum_backoff", 0.1, _DAY, violations)
    if maximum < initial and len(violations) == before:
        violations.append(Violation(f"{path}.maximum_backoff", f"must not be below initial_backoff ({initial:g} s)"))
    multiplier = policy.multiplier or default.multiplier
    if not 1 <= multiplier <= 10:
        violations.append(Violation(f"{path}.multiplier", "must be from 1 to 10, or 0"))
    attempts = policy.max_attempts or default.max_attempts
    if not 1 <= attempts <= 1_000:
        violations.append(Violation(f"{path}.max_attempts", "must be from 1 to 1000, or 0"))
    return RetryPolicy(initial, multiplier, maximum, attempts)


def _retention(request: pb.CreateGroupRequest | pb.UpdateGroupRequest, violations: list[Violation]) -> float:
    policy = request.dead_letter_policy
    if not policy.HasField("retention"):
        return _DEFAULT_RETENTION
    return seconds_of(policy.retention, "dead_letter_policy.retention", _HOUR, 3_650 * _DAY, violations)


def _ordered(request: pb.CreateGroupRequest, violations: list[Violation]) -> bool:
    if request.ordering not in (pb.ORDERING_UNSPECIFIED, pb.ORDERING_NONE, pb.ORDERING_BY_AGGREGATE):
        violations.append(Violation("ordering", "must be ORDERING_NONE or ORDERING_BY_AGGREGATE, or unset"))
    return request.ordering == pb.ORDERING_BY_AGGREGATE


def _fair(request: pb.CreateGroupRequest, violations: list[Violation]) -> bool:
    if request.fairness not in (pb.FAIRNESS_UNSPECIFIED, pb.FAIRNESS_NONE, pb.FAIRNESS_BY_TENANT):
        violations.append(Violation("fairness", "must be FAIRNESS_NONE or FAIRNESS_BY_TENANT, or unset"))
    fair = request.fairness == pb.FAIRNESS_BY_TENANT
    if fair and request.tenant_id:
        violations.append(Violation("fairness", "must not be FAIRNESS_BY_TENANT in a group of one tenant"))
    return fair


def _point(message: pb.LogPoint, path: str, violations: list[Violation]) -> LogPoint:
    kind = message.WhichOneof("point")
    if kind == "edge" and message.edge in _EDGES:
        return _EDGES[message.edge]
    if kind == "edge":
        violations.append(Violation(f"{path}.edge", "must be START_POINT_EARLIEST or START_POINT_LATEST"))
    elif kind == "position":
        if message.position < 0:
            violations.append(Violation(f"{path}.position", "must not be negative"))
        return AfterPosition(message.position)
    elif kind == "time":
        if (moment := moment_of(message.time)) is not None:
            return AtTime(moment)
        violations.append(Violation(f"{path}.time", "must be of the years 1 to 9999, with nanos below 1,000,000,000"))
    else:
        violations.append(Violation(path, "is required: one of edge, position, time"))
    return Edge.EARLIEST


def _message(group: Group) -> pb.Group:
    message = pb.Group(
        name=group.key.name,
        tenant_id=group.key.tenant_id,
        event_types=sorted(group.filter.patterns),
        paused=group.paused,
        ordering=pb.ORDERING_BY_AGGREGATE if group.ordered else pb.ORDERING_NONE,
        fairness=pb.FAIRNESS_BY_TENANT if group.fair else pb.FAIRNESS_NONE,
        sources=sorted(group.conditions.sources),
        aggregate_types=sorted(group.conditions.aggregate_types),
        tags=sorted(group.conditions.tags),
        limits=pb.ConsumerLimits(**asdict(group.limits)),
    )
    policy = message.retry_policy
    policy.multiplier, policy.max_attempts = group.retry.multiplier, group.retry.max_attempts
    _set_seconds(policy.initial_backoff, group.retry.initial)
    _set_seconds(policy.maximum_backoff, group.retry.maximum)
    _set_seconds(message.ack_deadline, group.ack_deadline)
    _set_seconds(message.dead_letter_policy.retention, group.dead_letter_retention)
    message.dead_letter_policy.hold_aggregate = group.hold
    return message


def _set_seconds(duration: Duration, seconds: float) -> None:
    duration.FromMicroseconds(round(seconds * 1_000_000))


def _status(standing: Standing) -> pb.GroupStatus:
    status = pb.GroupStatus(
        waiting_retries=standing.retries, dead_letters=standing.dead_letters, complete=standing.complete
    )
    for shard, head, settled in standing.shards:
        lag = max(0, head - settled)
        status.shards.add(shard=shard, head_position=head, settled_position=settled, lag=lag)
    if standing.oldest_unsettled_age is not None:
        status.oldest_unsettled_age.FromTimedelta(standing.oldest_unsettled_age)
    for consumer_id, process, pending, connected in standing.consumers:
        status.consumers.add(consumer_id=consumer_id, broker=process, pending_events=pending, connected=connected)
    return status
