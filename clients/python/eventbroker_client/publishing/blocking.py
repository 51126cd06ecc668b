"""A publisher for code that blocks, such as WSGI: the one part of this package without asyncio."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Self

import grpc
from eventbroker.v1 import publisher_service_pb2 as pb
from eventbroker.v1.publisher_service_pb2_grpc import PublisherServiceStub

from eventbroker_client.connection.address import OPTIONS, address_of, metadata_of
from eventbroker_client.connection.attempts import Attempts
from eventbroker_client.connection.failure import error_of
from eventbroker_client.errors import EventBrokerError
from eventbroker_client.events.wire import Defaults, message_of
from eventbroker_client.publishing.published import stored_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from eventbroker_client.connection.address import Tls
    from eventbroker_client.events.event import Event
    from eventbroker_client.publishing.published import Expect, Published


class BlockingPublisher:
    """Publishes and waits. Any number of threads may share one; make it after the process has forked.

    `with BlockingPublisher.connect("127.0.0.1:50051", tenant="acme") as publisher: publisher.publish(event)`
    """

    def __init__(
        self,
        channel: grpc.Channel,
        *,
        tenant: str = "",
        source: str = "",
        token: str | Callable[[], str] | None = None,
        timeout: float = 30.0,
    ) -> None:
        """On a channel of the caller's, which `close` closes. `timeout` is how many seconds a call and its repetitions
        may take."""
        self._channel = channel
        self._defaults = Defaults(tenant, source)
        self._token = token
        self._timeout = timeout
        self._publish = PublisherServiceStub(channel).Publish

    @classmethod
    def connect(
        cls,
        target: str | None = None,
        *,
        tenant: str = "",
        source: str = "",
        token: str | Callable[[], str] | None = None,
        tls: bool | Tls | None = None,
        timeout: float = 30.0,
    ) -> Self:
        """As `eventbroker_client.connect`. Raises ValueError if no target is known."""
        address = address_of(target, tls)
        if address.credentials is None:
            channel = grpc.insecure_channel(address.target, OPTIONS)
        else:
            channel = grpc.secure_channel(address.target, address.credentials, OPTIONS)
        return cls(channel, tenant=tenant, source=source, token=token, timeout=timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self._channel.close()

    def publish(self, event: Event, *, timeout: float | None = None) -> Published:
        """Returns when the event is stored. Raises EventBrokerError, as Broker.publish."""
        return self.publish_many([event], timeout=timeout)[0]

    def publish_many(
        self, events: Iterable[Event], *, expect: Iterable[Expect] = (), timeout: float | None = None
    ) -> list[Published]:
        """All of the events, or none. Raises EventBrokerError, as Broker.publish_many."""
        request = pb.PublishRequest(
            events=[message_of(event, self._defaults) for event in events],
            mode=pb.PUBLISH_MODE_ALL_OR_NONE,
            expectations=[expected.message() for expected in expect],
        )
        attempts = Attempts(self._timeout if timeout is None else timeout)
        while True:
            try:
                response = self._call(request, attempts.timeout())
            except EventBrokerError as error:
                time.sleep(attempts.pause_after(error))
            else:
                return [stored_of(result) for result in response.results]

    def _call(self, request: pb.PublishRequest, timeout: float) -> pb.PublishResponse:
        try:
            return self._publish(request, timeout=timeout, metadata=metadata_of(self._token))
        except grpc.RpcError as failure:
            raise error_of(failure) from None
