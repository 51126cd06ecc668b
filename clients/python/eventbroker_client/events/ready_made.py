"""The events of users, sessions, roles and permissions, which the contract brings along."""

from __future__ import annotations

from eventbroker.events.v1.role_pb2 import PermissionChecked, RoleAssigned
from eventbroker.events.v1.session_pb2 import SessionRevoked
from eventbroker.events.v1.user_pb2 import UserCreated, UserLoggedIn, UserStatusChanged

from eventbroker_client.events.domain_event import DomainEvent
from eventbroker_client.events.types import event_type

__all__ = [
    "PermissionChecked",
    "PermissionCheckedEvent",
    "RoleAssigned",
    "RoleAssignedEvent",
    "SessionRevoked",
    "SessionRevokedEvent",
    "UserCreated",
    "UserCreatedEvent",
    "UserLoggedIn",
    "UserLoggedInEvent",
    "UserStatusChanged",
    "UserStatusChangedEvent",
]

_USERS, _AUTH, _RBAC = "user-management-service", "auth-service", "rbac-service"

event_type("user.created", aggregate_type="User", source=_USERS, caused_by="user_registration")(UserCreated)
event_type("user.status_changed", aggregate_type="User", source=_USERS, caused_by="status_update")(UserStatusChanged)
event_type("user.login", aggregate_type="Session", source=_AUTH, caused_by="user_login")(UserLoggedIn)
event_type("session.revoked", aggregate_type="Session", source=_AUTH, caused_by="session_revocation")(SessionRevoked)
event_type("role.assigned", aggregate_type="UserRole", source=_RBAC, caused_by="role_assignment")(RoleAssigned)
event_type("permission.checked", aggregate_type="Permission", source=_RBAC, caused_by="permission_check")(
    PermissionChecked
)


class UserCreatedEvent(DomainEvent[UserCreated]):
    """`user.created`: a user, the aggregate, registered. `user_id` is who created the account."""


class UserStatusChangedEvent(DomainEvent[UserStatusChanged]):
    """`user.status_changed`: the status of a user, the aggregate, changed. `user_id` is who changed it."""


class UserLoggedInEvent(DomainEvent[UserLoggedIn]):
    """`user.login`: a user, the aggregate, logged in."""


class SessionRevokedEvent(DomainEvent[SessionRevoked]):
    """`session.revoked`: a session, the aggregate, was ended. `user_id` is whose it was."""


class RoleAssignedEvent(DomainEvent[RoleAssigned]):
    """`role.assigned`: a user, the aggregate, got a role. `user_id` is who assigned it."""


class PermissionCheckedEvent(DomainEvent[PermissionChecked]):
    """`permission.checked`: somebody asked whether a user, the aggregate, may."""
