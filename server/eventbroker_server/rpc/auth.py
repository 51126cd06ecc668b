"""Who may call what.

Every method of the API has a row in METHODS; one without a row cannot be called, and the server does not start while
there is one. A provider tells who a caller is, by the call's metadata. So far there is one provider, which takes
everybody for the platform, and is for loopback only.
"""

from __future__ import annotations

import ipaddress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol

from eventbroker_server.domain.errors import BadSetting, StartupError
from eventbroker_server.domain.principal import Principal, Role

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

PUBLIC = None

METHODS: dict[str, Role | None] = {
    "/eventbroker.v1.PublisherService/Publish": Role.PUBLISH,
    "/eventbroker.v1.PublisherService/PublishStream": Role.PUBLISH,
    "/eventbroker.v1.SubscriberService/Subscribe": Role.SUBSCRIBE,
    "/eventbroker.v1.SubscriberService/Consume": Role.SUBSCRIBE,
    "/eventbroker.v1.SubscriberService/Pull": Role.SUBSCRIBE,
    "/eventbroker.v1.SubscriberService/Ack": Role.SUBSCRIBE,
    "/eventbroker.v1.SubscriberService/Nack": Role.SUBSCRIBE,
    "/eventbroker.v1.SubscriberService/ExtendDeadline": Role.SUBSCRIBE,
    "/eventbroker.v1.EventStoreService/GetEvent": Role.READ,
    "/eventbroker.v1.EventStoreService/ListEvents": Role.READ,
    "/eventbroker.v1.EventStoreService/ListAggregateEvents": Role.READ,
    "/eventbroker.v1.EventStoreService/ListAggregates": Role.READ,
    "/eventbroker.v1.EventStoreService/ReadEvents": Role.READ,
    "/eventbroker.v1.EventStoreService/GetCausality": Role.READ,
    "/eventbroker.v1.EventStoreService/GetAggregate": Role.READ,
    "/eventbroker.v1.EventStoreService/SaveSnapshot": Role.PUBLISH,
    "/eventbroker.v1.EventStoreService/GetSnapshot": Role.READ,
    "/eventbroker.v1.EventStoreService/ListSnapshots": Role.READ,
    "/eventbroker.v1.DeadLetterService/ListDeadLetters": Role.READ,
    "/eventbroker.v1.DeadLetterService/GetDeadLetter": Role.READ,
    "/eventbroker.v1.DeadLetterService/RedriveDeadLetters": Role.MANAGE,
    "/eventbroker.v1.DeadLetterService/DeleteDeadLetters": Role.MANAGE,
    "/eventbroker.v1.GroupService/CreateGroup": Role.MANAGE,
    "/eventbroker.v1.GroupService/GetGroup": Role.READ,
    "/eventbroker.v1.GroupService/ListGroups": Role.READ,
    "/eventbroker.v1.GroupService/UpdateGroup": Role.MANAGE,
    "/eventbroker.v1.GroupService/PauseGroup": Role.MANAGE,
    "/eventbroker.v1.GroupService/ResumeGroup": Role.MANAGE,
    "/eventbroker.v1.GroupService/SeekGroup": Role.MANAGE,
    "/eventbroker.v1.GroupService/DeleteGroup": Role.MANAGE,
    "/eventbroker.v1.GroupService/ExplainDelivery": Role.READ,
    "/eventbroker.v1.GroupService/WaitForGroup": Role.READ,
    "/eventbroker.v1.StatsService/GetStats": Role.READ,
    "/grpc.health.v1.Health/Check": PUBLIC,
    "/grpc.health.v1.Health/Watch": PUBLIC,
    "/grpc.health.v1.Health/List": PUBLIC,
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": PUBLIC,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": PUBLIC,
}

PRINCIPAL: ContextVar[Principal] = ContextVar("principal")  # of the call that is being handled


class AuthProvider(Protocol):
    """Tells who calls."""

    loopback_only: bool

    async def authenticate(self, metadata: Mapping[str, str]) -> Principal:
        """Raises Unauthenticated."""


class OpenProvider:
    """Takes every caller for the platform: all tenants, all roles."""

    loopback_only = True
    _PLATFORM = Principal("open", frozenset(Role))

    async def authenticate(self, metadata: Mapping[str, str]) -> Principal:
        return self._PLATFORM


def check_methods(served: Iterable[str]) -> None:
    """Raise StartupError if a method that is served has no row."""
    if missing := sorted(set(served) - METHODS.keys()):
        raise StartupError(methods_without_a_rule=", ".join(missing))


def check_host(host: str, provider: AuthProvider) -> None:
    """Raise BadSetting if the server would listen to strangers without knowing who they are."""
    try:
        loopback = ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        loopback = host == "localhost"
    if provider.loopback_only and not loopback:
        raise BadSetting("host", f"is {host}: without authentication the server listens on loopback only (127.0.0.1)")
