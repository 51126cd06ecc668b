"""The gRPC server: its services, its limits, and how it notices that a peer is gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
from eventbroker.events.v1 import role_pb2, session_pb2, user_pb2
from eventbroker.v1 import (
    dead_letter_service_pb2,
    event_store_service_pb2,
    group_service_pb2,
    publisher_service_pb2,
    stats_service_pb2,
    subscriber_service_pb2,
)
from eventbroker.v1.dead_letter_service_pb2_grpc import add_DeadLetterServiceServicer_to_server
from eventbroker.v1.event_store_service_pb2_grpc import add_EventStoreServiceServicer_to_server
from eventbroker.v1.group_service_pb2_grpc import add_GroupServiceServicer_to_server
from eventbroker.v1.publisher_service_pb2_grpc import add_PublisherServiceServicer_to_server
from eventbroker.v1.stats_service_pb2_grpc import add_StatsServiceServicer_to_server
from eventbroker.v1.subscriber_service_pb2_grpc import add_SubscriberServiceServicer_to_server
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from eventbroker_server.domain.errors import BadSetting
from eventbroker_server.rpc.auth import check_methods

if TYPE_CHECKING:
    from eventbroker_server.rpc.dead_letters import DeadLetterServicer
    from eventbroker_server.rpc.door import Door
    from eventbroker_server.rpc.event_store import EventStoreServicer
    from eventbroker_server.rpc.groups import GroupServicer
    from eventbroker_server.rpc.publisher import PublisherServicer
    from eventbroker_server.rpc.stats import StatsServicer
    from eventbroker_server.rpc.subscriber import SubscriberServicer

SERVICES = [
    publisher_service_pb2.DESCRIPTOR.services_by_name["PublisherService"],
    subscriber_service_pb2.DESCRIPTOR.services_by_name["SubscriberService"],
    event_store_service_pb2.DESCRIPTOR.services_by_name["EventStoreService"],
    dead_letter_service_pb2.DESCRIPTOR.services_by_name["DeadLetterService"],
    group_service_pb2.DESCRIPTOR.services_by_name["GroupService"],
    stats_service_pb2.DESCRIPTOR.services_by_name["StatsService"],
]

# Reflection can show what is loaded: with these, the seed's events are readable in grpcurl.
DOMAIN_EVENTS = (role_pb2, session_pb2, user_pb2)

_MEBI = 1024 * 1024


def _options(max_publish_bytes: int) -> list[tuple[str, int]]:
    return [
        # A larger call than we take is refused by us, with a reason, as long as the transport lets it through.
        ("grpc.max_receive_message_length", 2 * max_publish_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.so_reuseport", 0),
        # All three are needed to notice a frozen peer within 20 s; without the last it takes a minute.
        ("grpc.keepalive_time_ms", 10_000),
        ("grpc.keepalive_timeout_ms", 5_000),
        ("grpc.http2.ping_timeout_ms", 5_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.max_metadata_size", 64 * 1024),
    ]


class Server:
    """`start`, then `serving`; `not_serving` first when it is to stop, then `stop`."""

    def __init__(
        self,
        door: Door,
        publisher: PublisherServicer,
        subscriber: SubscriberServicer,
        event_store: EventStoreServicer,
        dead_letters: DeadLetterServicer,
        groups: GroupServicer,
        stats: StatsServicer,
        max_publish_bytes: int,
    ) -> None:
        self._server = grpc.aio.server(interceptors=[door], options=_options(max_publish_bytes))
        self._health = health.aio.HealthServicer()
        add_PublisherServiceServicer_to_server(publisher, self._server)
        add_SubscriberServiceServicer_to_server(subscriber, self._server)
        add_EventStoreServiceServicer_to_server(event_store, self._server)
        add_DeadLetterServiceServicer_to_server(dead_letters, self._server)
        add_GroupServiceServicer_to_server(groups, self._server)
        add_StatsServiceServicer_to_server(stats, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = [service.full_name for service in SERVICES]
        reflection.enable_server_reflection(
            [*names, health.SERVICE_NAME, reflection.SERVICE_NAME],
            self._server,
        )
        self._names = ["", *names]
        served = [*SERVICES, *health_pb2.DESCRIPTOR.services_by_name.values()]
        served += reflection_pb2.DESCRIPTOR.services_by_name.values()
        check_methods(f"/{service.full_name}/{method.name}" for service in served for method in service.methods)

    async def start(self, host: str, port: int) -> int:
        """Listen; answer the port. Raises BadSetting."""
        try:
            bound: int = self._server.add_insecure_port(target_of(host, port))
        except RuntimeError as exc:
            rule = f"{port} cannot be listened to on {host}: is it in use? EVENTBROKER_PORT sets another"
            raise BadSetting("port", rule) from exc
        await self._server.start()
        return bound

    async def serving(self) -> None:
        for name in self._names:
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)

    async def not_serving(self) -> None:
        await self._health.enter_graceful_shutdown()

    async def stop(self, grace: float) -> None:
        await self._server.stop(grace)


def target_of(host: str, port: int) -> str:
    """As clients take it: an IPv6 address stands in brackets."""
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"
