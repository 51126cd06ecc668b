"""All groups, by name and tenant, and all of their deliveries, by ack id."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from eventbroker.v1 import subscriber_service_pb2 as pb

from eventbroker_client.testing.memory.group import Group, Policy
from eventbroker_client.testing.memory.refused import Refused, knows_only, refuse_if
from eventbroker_client.testing.memory.rules import name_faults, pattern_faults

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from eventbroker.v1 import group_service_pb2
    from eventbroker.v1.event_pb2 import Event
    from google.protobuf.duration_pb2 import Duration

    from eventbroker_client.testing.memory.group import Item
    from eventbroker_client.testing.memory.refused import Violation

ACK_DEADLINE = 30.0  # seconds


class Groups:
    """`history` is the log's own list of events."""

    def __init__(self, history: Sequence[Event]) -> None:
        self._history = history
        self._groups: dict[tuple[str, str], Group] = {}
        self._deliveries: dict[str, tuple[Group, Item]] = {}

    def offer(self, event: Event) -> None:
        for group in self._groups.values():
            group.offer(event)

    def get(self, name: str, tenant: str) -> Group:
        """Raises Refused."""
        if (name, tenant) not in self._groups:
            raise Refused("GROUP_NOT_FOUND", group=name, tenant_id=tenant)
        return self._groups[name, tenant]

    def create(self, request: group_service_pb2.CreateGroupRequest) -> Group:
        """Raises Refused."""
        knows_only(request, "name", "tenant_id", "event_types", "ack_deadline", "retry_policy")
        faults = list(name_faults({"name": request.name}, optional=False))
        faults += name_faults({"tenant_id": request.tenant_id})
        faults += pattern_faults(request.event_types)
        deadline = _deadline(request, faults)
        refuse_if(faults)
        if (request.name, request.tenant_id) in self._groups:
            raise Refused("GROUP_EXISTS", group=request.name, tenant_id=request.tenant_id)
        said, usual = request.retry_policy, Policy()
        policy = Policy(
            _seconds(said.initial_backoff) or usual.initial,
            said.multiplier or usual.multiplier,
            _seconds(said.maximum_backoff) or usual.maximum,
            said.max_attempts or usual.max_attempts,
        )
        return self._make(request.name, request.tenant_id, request.event_types, deadline, policy)

    def subscribed(self, wish: pb.SubscribeRequest) -> Group:
        """The group that is wished for; a named one is made if there is none. Raises Refused."""
        named = {field: getattr(wish, field) for field in ("group", "consumer_id", "tenant_id")}
        faults = [*name_faults(named), *pattern_faults(wish.event_types)]
        deadline = _deadline(wish, faults)
        refuse_if([(f"open.{field}", rule) for field, rule in faults])
        group = self._groups.get((wish.group, wish.tenant_id))
        if group is None:
            latest = wish.start == pb.START_POINT_LATEST or (not wish.group and not wish.start)
            return self._make(wish.group, wish.tenant_id, wish.event_types, deadline, after=latest)
        other_types = wish.event_types and frozenset(wish.event_types) != group.types
        if other_types or (wish.HasField("ack_deadline") and deadline != group.ack_deadline):
            types = ",".join(sorted(group.types))
            raise Refused(
                "GROUP_MISMATCH", group=group.name, event_types=types, ack_deadline_seconds=f"{group.ack_deadline:g}"
            )
        return group

    def settle(
        self, ack_ids: Iterable[str], one: Callable[[Group, Item, str], pb.SettleOutcome.ValueType]
    ) -> list[pb.SettleResult]:
        results = []
        for ack_id in ack_ids:
            known = self._deliveries.get(ack_id)
            outcome = one(*known, ack_id) if known else pb.SETTLE_OUTCOME_UNKNOWN
            results.append(pb.SettleResult(ack_id=ack_id, outcome=outcome))
        return results

    def close(self) -> None:
        for group in self._groups.values():
            group.close()

    def _make(
        self,
        name: str,
        tenant: str,
        types: Iterable[str],
        deadline: float,
        policy: Policy = Policy(),  # noqa: B008 - never changes
        *,
        after: bool = False,
    ) -> Group:
        """`after`: beginning after the events that are there. An ephemeral group, without a name, gets one."""
        made = Group(name or f"ephemeral-{uuid.uuid4()}", tenant, types, deadline, self._deliveries, policy)
        for event in () if after else self._history:
            made.offer(event)
        self._groups[made.name, tenant] = made
        return made

    def forget(self, group: Group) -> None:
        """An ephemeral one whose stream is over."""
        del self._groups[group.name, group.tenant]
        group.close()


def _deadline(request: pb.SubscribeRequest | group_service_pb2.CreateGroupRequest, faults: list[Violation]) -> float:
    if not request.HasField("ack_deadline"):
        return ACK_DEADLINE
    seconds = _seconds(request.ack_deadline)
    if not 1 <= seconds <= 43_200:
        faults.append(("ack_deadline", f"must be from 1 s to 43200 s, not {seconds:g} s"))
    return seconds


def _seconds(duration: Duration) -> float:
    return duration.ToTimedelta().total_seconds()
