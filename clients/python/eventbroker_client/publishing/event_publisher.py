"""The ready-made events, published from plain arguments."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from eventbroker.events.v1.role_pb2 import PermissionChecked, RoleAssigned
from eventbroker.events.v1.session_pb2 import SessionRevoked
from eventbroker.events.v1.user_pb2 import UserCreated, UserLoggedIn, UserStatusChanged

from eventbroker_client.events import ready_made

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from eventbroker_client.publishing.published import Published, Publisher


class User(Protocol):
    """A user, as far as `user.created` tells of one. If it has a `tenant_id`, that is the event's."""

    @property
    def id(self) -> str: ...
    @property
    def email(self) -> str: ...
    @property
    def username(self) -> str: ...
    @property
    def first_name(self) -> str: ...
    @property
    def last_name(self) -> str: ...
    @property
    def status(self) -> str: ...


class EventPublisher:
    """Each method publishes one event, and returns when it is stored. They raise EventBrokerError.

    `tenant_id` is the event's; empty stands for that of `connect`. Times need a time zone.
    """

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    async def publish_user_created(self, user: User, created_by: str = "") -> Published:
        """`user.created`."""
        data = UserCreated(
            email=user.email,
            username=user.username,
            first_name=user.first_name,
            last_name=user.last_name,
            status=user.status,
        )
        tenant_id = getattr(user, "tenant_id", "")
        event = ready_made.UserCreatedEvent(user.id, data, tenant_id=tenant_id, user_id=created_by)
        return await self._publisher.publish(event)

    async def publish_user_status_changed(
        self, user_id: str, old_status: str, new_status: str, changed_by: str, reason: str = "", tenant_id: str = ""
    ) -> Published:
        """`user.status_changed`."""
        data = UserStatusChanged(old_status=old_status, new_status=new_status, reason=reason)
        event = ready_made.UserStatusChangedEvent(user_id, data, tenant_id=tenant_id, user_id=changed_by)
        return await self._publisher.publish(event)

    async def publish_user_login(
        self,
        user_id: str,
        session_id: str,
        source_ip: str,
        user_agent: str,
        tenant_id: str = "",
        login_method: str = "password",
    ) -> Published:
        """`user.login`."""
        data = UserLoggedIn(
            session_id=session_id, source_ip=source_ip, user_agent=user_agent, login_method=login_method
        )
        event = ready_made.UserLoggedInEvent(user_id, data, tenant_id=tenant_id, user_id=user_id, session_id=session_id)
        return await self._publisher.publish(event)

    async def publish_session_revoked(
        self,
        session_id: str,
        user_id: str,
        revoked_by: str,
        reason: str,
        affected_sessions: Iterable[str] = (),
        tenant_id: str = "",
    ) -> Published:
        """`session.revoked`. Without affected sessions it is this one."""
        data = SessionRevoked(
            user_id=user_id,
            revoked_by=revoked_by,
            reason=reason,
            affected_sessions=list(affected_sessions) or [session_id],
        )
        event = ready_made.SessionRevokedEvent(
            session_id, data, tenant_id=tenant_id, user_id=user_id, session_id=session_id
        )
        return await self._publisher.publish(event)

    async def publish_role_assigned(
        self,
        user_id: str,
        role_id: str,
        role_name: str,
        assigned_by: str,
        tenant_id: str = "",
        effective_date: datetime | None = None,
        expiration_date: datetime | None = None,
    ) -> Published:
        """`role.assigned`. Without an effective date it holds from now, without an expiration date for ever."""
        data = RoleAssigned(role_id=role_id, role_name=role_name, assigned_by=assigned_by)
        data.effective_date.FromDatetime(effective_date or datetime.now(UTC))
        if expiration_date is not None:
            data.expiration_date.FromDatetime(expiration_date)
        event = ready_made.RoleAssignedEvent(user_id, data, tenant_id=tenant_id, user_id=assigned_by)
        return await self._publisher.publish(event)

    async def publish_permission_checked(
        self,
        user_id: str,
        resource: str,
        action: str,
        allowed: bool,
        applied_roles: Iterable[str] = (),
        context: Mapping[str, Any] | None = None,
        tenant_id: str = "",
    ) -> Published:
        """`permission.checked`. `context` is a value of JSON."""
        data = PermissionChecked(resource=resource, action=action, allowed=allowed, applied_roles=applied_roles)
        if context is not None:
            data.context.update(context)
        event = ready_made.PermissionCheckedEvent(user_id, data, tenant_id=tenant_id, user_id=user_id)
        return await self._publisher.publish(event)
