"""Events published by methods: the decorator, and the ready-made events from plain arguments."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from eventbroker_client import (
    Broker,
    DomainEvent,
    Event,
    EventPublisher,
    PermissionChecked,
    Published,
    RoleAssigned,
    SessionRevoked,
    UserCreated,
    UserCreatedEvent,
    UserLoggedIn,
    UserStatusChanged,
    publishes,
)

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass
class User:
    id: str
    email: str
    username: str = "ada"
    first_name: str = "Ada"
    last_name: str = "L."
    status: str = "active"


class Recorder:
    """Publishes to a list."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    async def publish(self, event: Event, *, timeout: float | None = None) -> Published:
        self.events.append(event)
        return Published(event.id, len(self.events), 1, False)


def user_created(user: User, call: Mapping[str, Any]) -> Event:
    return UserCreatedEvent(user.id, UserCreated(email=user.email), user_id=call["created_by"])


class Users:
    def __init__(self, broker: Recorder | Broker) -> None:
        self.broker = broker

    @publishes(user_created)
    async def create(self, email: str, *, created_by: str = "nobody") -> User:
        """Makes a user."""
        if "@" not in email:
            raise ValueError(email)
        return User("u1", email)

    @publishes(lambda count, call: [Event("mail.sent", "Mail", f"m{n}") for n in range(count)] or None)
    async def send(self, count: int) -> int:
        return count


async def test_the_event_is_made_of_the_result_and_the_arguments_and_stored(sdk: Broker, tenant: str) -> None:
    user = await Users(sdk).create("ada@example.com", created_by="admin")
    assert user == User("u1", "ada@example.com")
    async with sdk.subscribe("g") as deliveries:
        async for delivery in deliveries:
            event = delivery.event
            assert (event.type, event.aggregate_id, event.user_id) == ("user.created", "u1", "admin")
            assert event.data == UserCreated(email="ada@example.com")
            break


async def test_a_method_that_raises_publishes_nothing() -> None:
    recorder = Recorder()
    with pytest.raises(ValueError, match="nonsense"):
        await Users(recorder).create("nonsense")
    assert recorder.events == []


async def test_arguments_that_are_left_out_have_their_defaults() -> None:
    recorder = Recorder()
    await Users(recorder).create(email="ada@example.com")
    assert [event.user_id for event in recorder.events] == ["nobody"]


async def test_a_method_may_publish_several_events_or_none() -> None:
    recorder = Recorder()
    assert await Users(recorder).send(3) == 3
    assert await Users(recorder).send(0) == 0
    assert [event.aggregate_id for event in recorder.events] == ["m0", "m1", "m2"]


async def test_a_function_names_its_publisher() -> None:
    one, other = Recorder(), Recorder()

    @publishes(lambda result, call: Event("a.b", "A", result), via=one)
    async def by_object(of: str) -> str:
        return of

    @publishes(lambda result, call: Event("a.b", "A", result), via=lambda call: call["to"])
    async def by_argument(of: str, to: Recorder) -> str:
        return of

    await by_object("a")
    await by_argument("b", other)
    assert [event.aggregate_id for event in one.events + other.events] == ["a", "b"]


def test_what_is_not_async_is_refused_when_it_is_decorated() -> None:
    with pytest.raises(TypeError, match="not an async function"):

        @publishes(user_created)  # type: ignore[arg-type]
        def create() -> User:
            return User("u1", "")


def test_a_decorated_method_keeps_its_name_and_text() -> None:
    assert (Users.create.__name__, Users.create.__doc__) == ("create", "Makes a user.")


async def test_each_ready_made_event_is_stored_with_its_type_and_its_data(sdk: Broker) -> None:
    publisher = EventPublisher(sdk)
    when = datetime(2026, 1, 2, tzinfo=UTC)
    results = [
        await publisher.publish_user_created(User("u1", "ada@example.com"), created_by="admin"),
        await publisher.publish_user_status_changed("u1", "active", "locked", "admin", "too many attempts"),
        await publisher.publish_user_login("u1", "s1", "10.0.0.1", "curl"),
        await publisher.publish_session_revoked("s1", "u1", "admin", "locked"),
        await publisher.publish_role_assigned("u1", "r1", "auditor", "admin", effective_date=when),
        await publisher.publish_permission_checked("u1", "invoice/1", "read", True, ["auditor"], {"ip": "10.0.0.1"}),
    ]
    events = [await sdk.get_event(result.event_id) for result in results]
    assert all(isinstance(event, DomainEvent) for event in events)
    assert [(event.type, event.aggregate_type, event.aggregate_id, event.user_id) for event in events] == [
        ("user.created", "User", "u1", "admin"),
        ("user.status_changed", "User", "u1", "admin"),
        ("user.login", "Session", "u1", "u1"),
        ("session.revoked", "Session", "s1", "u1"),
        ("role.assigned", "UserRole", "u1", "admin"),
        ("permission.checked", "Permission", "u1", "u1"),
    ]
    assert [(event.source, event.caused_by) for event in events[::2]] == [
        ("user-management-service", "user_registration"),
        ("auth-service", "user_login"),
        ("rbac-service", "role_assignment"),
    ]
    role = RoleAssigned(role_id="r1", role_name="auditor", assigned_by="admin")
    role.effective_date.FromDatetime(when)
    checked = PermissionChecked(resource="invoice/1", action="read", allowed=True, applied_roles=["auditor"])
    checked.context.update({"ip": "10.0.0.1"})
    assert [event.data for event in events] == [
        UserCreated(email="ada@example.com", username="ada", first_name="Ada", last_name="L.", status="active"),
        UserStatusChanged(old_status="active", new_status="locked", reason="too many attempts"),
        UserLoggedIn(session_id="s1", source_ip="10.0.0.1", user_agent="curl", login_method="password"),
        SessionRevoked(user_id="u1", revoked_by="admin", reason="locked", affected_sessions=["s1"]),
        role,
        checked,
    ]
