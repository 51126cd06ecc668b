"""The demo's simulated platform: deterministic, complete, in order, and within the rules of event.proto."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from itertools import pairwise

import pytest
from eventbroker.events.v1.role_pb2 import PermissionChecked, RoleAssigned
from eventbroker.events.v1.session_pb2 import SessionRevoked
from eventbroker.events.v1.user_pb2 import UserCreated, UserLoggedIn, UserStatusChanged
from eventbroker.v1.event_pb2 import Event
from eventbroker_cli.demo.platform import AGGREGATE_TYPES, DAY_START, EVENT_TYPES, Platform, tenant_name
from google.protobuf.json_format import Parse

EVENTS, TENANTS, USERS = 20_000, 30, 3_000
MESSAGES = {
    "user.created": UserCreated,
    "user.status_changed": UserStatusChanged,
    "user.login": UserLoggedIn,
    "session.revoked": SessionRevoked,
    "role.assigned": RoleAssigned,
    "permission.checked": PermissionChecked,
}
Data = UserCreated | UserStatusChanged | UserLoggedIn | SessionRevoked | RoleAssigned | PermissionChecked


def day_of(seed: int = 7, run_id: str = "run", events: int = EVENTS) -> list[Event]:
    return list(Platform(seed=seed, run_id=run_id, events=events, tenants=TENANTS, users=USERS).day())


def data_of(event: Event) -> Data:
    """The typed data, of whichever form; it must be of the type that belongs to the event's."""
    message: Data = MESSAGES[event.event_type]()
    if event.WhichOneof("data") == "json":
        return Parse(event.json, message)
    assert event.message.Unpack(message)
    return message


@pytest.fixture(scope="module")
def day() -> list[Event]:
    return day_of()


def test_same_seed_gives_the_same_day(day: list[Event]) -> None:
    again = day_of()
    assert [event.SerializeToString(deterministic=True) for event in again] == [
        event.SerializeToString(deterministic=True) for event in day
    ]


def test_another_seed_gives_another_day(day: list[Event]) -> None:
    assert day_of(seed=8) != day


def test_run_id_shows_in_the_event_ids_only(day: list[Event]) -> None:
    for number, (one, other) in enumerate(zip(day, day_of(run_id="other"), strict=True)):
        assert (one.event_id, other.event_id) == (f"run-{number}", f"other-{number}")
        other.event_id = one.event_id
        assert one == other


@pytest.mark.parametrize("events", [1, 2, 99, 1_000])
def test_count_is_exact(events: int) -> None:
    assert len(day_of(events=events)) == events


def test_all_six_types_occur_in_realistic_proportions(day: list[Event]) -> None:
    share = {event_type: count / EVENTS for event_type, count in Counter(e.event_type for e in day).items()}
    assert set(share) == set(EVENT_TYPES)
    assert share["permission.checked"] > share["user.login"] > share["session.revoked"] > share["role.assigned"]
    assert share["role.assigned"] > share["user.created"] > 0.005


def test_tenants_are_of_very_different_sizes(day: list[Event]) -> None:
    counts = Counter(event.tenant_id for event in day)
    assert set(counts) == {tenant_name(number) for number in range(TENANTS)}
    assert max(counts.values()) > 8 * min(counts.values())


def test_time_goes_forward_within_the_day(day: list[Event]) -> None:
    times = [event.timestamp.ToNanoseconds() for event in day]
    assert all(before <= after for before, after in pairwise(times))
    assert times[0] >= DAY_START * 10**9
    assert times[-1] < (DAY_START + 86_400) * 10**9
    assert all(time % 1_000 == 0 for time in times)  # the store keeps microseconds


def test_each_tenth_event_carries_json_and_the_others_a_typed_message(day: list[Event]) -> None:
    assert Counter(event.WhichOneof("data") for event in day) == {"message": EVENTS * 9 // 10, "json": EVENTS // 10}
    assert {event.event_type for event in day if event.WhichOneof("data") == "json"} == set(EVENT_TYPES)
    for event in day:
        data_of(event)


def test_names_and_ids_keep_the_rules(day: list[Event]) -> None:
    name = re.compile(r"[A-Za-z0-9._-]{1,128}")
    any_id = re.compile(r"[^\x00-\x1f\x7f-\x9f]{1,256}")
    for event in day:
        assert re.fullmatch(r"[a-z0-9_-]+(\.[a-z0-9_-]+){0,7}", event.event_type)
        for text in (event.event_type, event.event_version, event.aggregate_type, event.tenant_id):
            assert name.fullmatch(text)
        for text in (event.event_id, event.aggregate_id, event.request_id, event.correlation_id):
            assert any_id.fullmatch(text)
        for text in (event.user_id, event.session_id):
            assert not text or any_id.fullmatch(text)
        assert event.metadata.source
        assert event.metadata.caused_by
        assert all(name.fullmatch(key) for key in event.metadata.attributes)
        assert event.aggregate_type == AGGREGATE_TYPES[event.event_type]
        assert not event.aggregate_version
        assert not event.position
        assert not event.HasField("record_time")


def test_users_act_after_they_were_created_and_not_while_suspended(day: list[Event]) -> None:
    status = {f"user-{number:06d}": "active" for number in range(USERS)}
    home: dict[str, str] = {}
    for event in day:
        data = data_of(event)
        user = data.user_id if isinstance(data, SessionRevoked) else event.aggregate_id
        assert home.setdefault(user, event.tenant_id) == event.tenant_id
        if isinstance(data, UserCreated):
            assert user not in status
            status[user] = data.status
        elif isinstance(data, UserStatusChanged):
            assert status[user] == data.old_status != data.new_status
            status[user] = data.new_status
        elif isinstance(data, UserLoggedIn | PermissionChecked):
            assert status[user] == "active"
        else:
            assert user in status


def test_sessions_begin_with_a_login_and_end_once(day: list[Event]) -> None:
    open_sessions: dict[str, str] = {}  # with whose they are
    for event in day:
        data = data_of(event)
        if isinstance(data, UserLoggedIn):
            assert data.session_id == event.session_id
            assert data.session_id not in open_sessions
            open_sessions[data.session_id] = event.aggregate_id
        elif isinstance(data, PermissionChecked):
            assert open_sessions[event.session_id] == event.user_id
        elif isinstance(data, SessionRevoked):
            assert event.aggregate_id in data.affected_sessions
            assert {open_sessions.pop(session) for session in data.affected_sessions} == {data.user_id}


def test_login_checks_and_logout_share_a_correlation_id(day: list[Event]) -> None:
    chain_of: dict[str, str] = {}
    chains: dict[str, set[str]] = defaultdict(set)
    for event in day:
        data = data_of(event)
        chains[event.correlation_id].add(event.event_type)
        if isinstance(data, UserLoggedIn):
            chain_of[event.session_id] = event.correlation_id
        elif isinstance(data, PermissionChecked) or (
            isinstance(data, SessionRevoked) and data.reason != "account suspended"
        ):
            assert chain_of[event.session_id] == event.correlation_id
    assert sum({"user.login", "permission.checked", "session.revoked"} <= types for types in chains.values()) > 100
    assert any({"user.created", "user.status_changed", "role.assigned", "user.login"} <= t for t in chains.values())


def test_what_is_allowed_follows_from_the_roles(day: list[Event]) -> None:
    answers: dict[tuple[str, str, tuple[str, ...]], set[bool]] = defaultdict(set)
    for event in day:
        data = data_of(event)
        if isinstance(data, PermissionChecked):
            answers[data.resource, data.action, tuple(data.applied_roles)].add(data.allowed)
    assert all(len(answer) == 1 for answer in answers.values())
    assert {True, False} == set.union(*answers.values())


def test_smallest_world_goes_through_the_day() -> None:
    events = list(Platform(seed=1, run_id="r", events=2_000, tenants=1, users=1).day())
    assert len(events) == 2_000
    assert {event.tenant_id for event in events} == {tenant_name(0)}


def test_tenant_without_users_is_refused() -> None:
    with pytest.raises(ValueError, match="every tenant needs a user"):
        Platform(seed=1, run_id="r", events=1, tenants=2, users=1)


def test_tenant_names_differ_beyond_a_hundred() -> None:
    assert len({tenant_name(number) for number in range(1_000)}) == 1_000
