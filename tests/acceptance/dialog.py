"""A Consume stream, for tests: a Stream that also says things, and gets outcomes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
from eventbroker.v1 import subscriber_service_pb2 as pb

from tests.client import TIMEOUT, Stream

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.client import Client


class Dialog(Stream):
    """`begin` opens one. Outcomes are put aside, by correlation, whenever anything is read."""

    def __init__(self, client: Client) -> None:
        self.consume = client.subscriber.Consume()
        self.outcomes: dict[int, list[pb.SettleResult]] = {}
        self._told: list[pb.SubscribeResponse] = []
        super().__init__(client, _Told(self))

    @classmethod
    async def begin(cls, client: Client, group: str, **fields: Any) -> Dialog:
        """ack_deadline is in seconds."""
        wish = pb.SubscribeRequest(group=group)
        if (seconds := fields.pop("ack_deadline", None)) is not None:
            wish.ack_deadline.FromMilliseconds(round(seconds * 1000))
        wish.MergeFrom(pb.SubscribeRequest(**fields))
        dialog = cls(client)
        await dialog.say(open=wish)
        await dialog.open()
        return dialog

    async def say(self, correlation: int = 0, **request: Any) -> None:
        await self.consume.write(pb.ConsumeRequest(correlation=correlation, **request))

    async def ack(self, ack_ids: Iterable[str], correlation: int = 1) -> list[int]:
        await self.say(correlation, ack=pb.AckRequest(ack_ids=ack_ids))
        return await self.outcome(correlation)

    async def outcome(self, correlation: int) -> list[int]:
        """Wait for these outcomes; what else comes is kept."""
        async with asyncio.timeout(TIMEOUT):
            while correlation not in self.outcomes:
                message = await self.next_told()
                assert message is not grpc.aio.EOF, "the stream ended without the outcomes"
                if message is not None:
                    self._told.append(message)
        return [result.outcome for result in self.outcomes.pop(correlation)]

    async def next_told(self) -> Any:
        """What the subscription says next; None for outcomes, which are put aside."""
        response: Any = await self.consume.read()
        if response is grpc.aio.EOF or response.HasField("subscription"):
            return response if response is grpc.aio.EOF else response.subscription
        self.outcomes[response.outcomes.correlation] = list(response.outcomes.results)
        return None

    def kept(self) -> pb.SubscribeResponse | None:
        return self._told.pop(0) if self._told else None


class _Told:
    """The half of a dialog that is as a Subscribe call."""

    def __init__(self, dialog: Dialog) -> None:
        self._dialog = dialog

    async def read(self) -> Any:
        if (kept := self._dialog.kept()) is not None:
            return kept
        while (message := await self._dialog.next_told()) is None:
            pass
        return message

    async def code(self) -> grpc.StatusCode:
        code: grpc.StatusCode = await self._dialog.consume.code()
        return code

    def cancel(self) -> None:
        self._dialog.consume.cancel()
