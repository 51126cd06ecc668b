"""A channel to the broker, and unary calls on it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from eventbroker_client.connection.address import OPTIONS, metadata_of
from eventbroker_client.connection.attempts import Attempts
from eventbroker_client.connection.failure import error_of
from eventbroker_client.errors import Closed, EventBrokerError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from eventbroker_client.connection.address import Address


class Connection:
    """One channel, which connects by itself, and again whenever it must. Made inside the event loop that uses it."""

    def __init__(
        self,
        address: Address,
        *,
        token: str | Callable[[], str] | None = None,
        timeout: float = 30.0,
        interceptors: Sequence[grpc.aio.ClientInterceptor] = (),
    ) -> None:
        """`timeout` is how many seconds a call and its repetitions may take, unless the call says otherwise."""
        self.timeout = timeout
        self._token = token
        self._closed = False
        if address.credentials is None:
            self.channel = grpc.aio.insecure_channel(address.target, OPTIONS, interceptors=interceptors)
        else:
            self.channel = grpc.aio.secure_channel(
                address.target, address.credentials, OPTIONS, interceptors=interceptors
            )

    def metadata(self) -> tuple[tuple[str, str], ...]:
        return metadata_of(self._token)

    async def call(self, method: Any, request: Any, timeout: float | None = None) -> Any:
        """The answer to a unary call that may be made again without harm, as all of the broker's may.

        Raises EventBrokerError: Unavailable if there was no answer within `timeout` seconds.
        """
        attempts = Attempts(self.timeout if timeout is None else timeout)
        while True:
            try:
                return await self.call_once(method, request, attempts.timeout())
            except EventBrokerError as error:
                await asyncio.sleep(attempts.pause_after(error))

    async def call_once(self, method: Any, request: Any, timeout: float) -> Any:
        """As `call`, with one attempt."""
        try:
            return await method(request, timeout=timeout, metadata=self.metadata())
        except grpc.RpcError as failure:
            raise error_of(failure) from None
        except grpc.aio.UsageError:
            raise Closed from None
        except asyncio.CancelledError:
            if self.cancelled_by_close():
                raise Closed from None
            raise

    async def close(self) -> None:
        """Ends all calls."""
        self._closed = True
        await self.channel.close()

    def cancelled_by_close(self) -> bool:
        """Whether a CancelledError of a call came from `close`, and not from whoever cancelled the task that waits."""
        task = asyncio.current_task()
        return self._closed and (task is None or not task.cancelling())
