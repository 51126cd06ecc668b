"""A consumer of a group: notes what comes, acks it, and opens its stream again whenever it ends.

It has a connection of its own and lives until it is cancelled, or killed by a fault: then it drops what it has not
begun to ack, as a process that dies would. Acks in flight are answered all the same, or the books could not know what
became of them.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import grpc.aio
from eventbroker.v1.subscriber_service_pb2 import (
    CLOSING_REASON_REPLACED,
    SETTLE_OUTCOME_ALREADY_SETTLED,
    SETTLE_OUTCOME_DONE,
    SETTLE_OUTCOME_OUTDATED,
    START_POINT_LATEST,
    AckRequest,
    ClosingReason,
    FlowControl,
    SubscribeRequest,
)
from eventbroker.v1.subscriber_service_pb2_grpc import SubscriberServiceStub
from google.protobuf.duration_pb2 import Duration

from eventbroker_cli.demo.broker import pause

if TYPE_CHECKING:
    from eventbroker.v1.subscriber_service_pb2 import Closing, DeliveryBatch
    from eventbroker.v1.subscriber_service_pb2_grpc import SubscriberServiceAsyncStub

    from eventbroker_cli.demo.broker import Broker
    from eventbroker_cli.demo.faults import Faults
    from eventbroker_cli.demo.ledger import Group
    from eventbroker_cli.demo.screen import LiveScreen

SILENCE = 60.0  # seconds; a stream without even a heartbeat for so long is broken
ACK_DEADLINE = 15  # seconds; how long the events of a consumer that hangs stay with it
ACKERS, ACK_SIZE = 3, 1_000  # Ack calls in flight, and ids in one


class Consumer:
    """One consumer of a group. `opened` is set once the broker has opened a stream to it."""

    def __init__(self, consumer_id: str, group: Group, broker: Broker, faults: Faults, screen: LiveScreen) -> None:
        self.consumer_id, self.group = consumer_id, group
        self.opened = asyncio.Event()
        self._broker, self._faults, self._screen = broker, faults, screen
        self._attempt = 0
        self._unsent: asyncio.Queue[list[tuple[str, str]] | None] = asyncio.Queue()  # event and ack ids; None: the end
        self._request = SubscribeRequest(
            group=group.full_name,
            consumer_id=consumer_id,
            event_types=group.event_types,
            start=START_POINT_LATEST,
            ack_deadline=Duration(seconds=ACK_DEADLINE),
            flow_control=FlowControl(max_unsettled_events=2_000, max_batch_events=250),
        )

    async def run(self) -> int:
        """Consumes until killed, and returns how many deliveries it then held. Raises an ExceptionGroup of Refused."""
        async with self._broker.connect() as channel, asyncio.TaskGroup() as ackers:
            stub = SubscriberServiceStub(channel)
            for number in range(ACKERS):
                ackers.create_task(self._ack(stub), name=f"{self.consumer_id} ack {number}")
            await self._read(stub)
            dropped = 0
            while not self._unsent.empty():
                dropped += len(self._unsent.get_nowait() or ())
            for _ in range(ACKERS):
                self._unsent.put_nowait(None)
        return dropped

    async def _read(self, stub: SubscriberServiceAsyncStub) -> None:
        """Reads one stream after another, until killed."""
        while True:
            try:
                if await self._stream(stub):
                    return
            except TimeoutError:
                self._tell(f"nothing came for {SILENCE:.0f} s")
            except grpc.aio.AioRpcError as error:
                self._broker.failed(error)
                self._tell(self._broker.trouble)
            await pause(self._attempt)
            self._attempt += 1

    async def _stream(self, stub: SubscriberServiceAsyncStub) -> bool:
        """Reads one stream to its end. Whether this consumer was killed."""
        clock = asyncio.get_running_loop()
        closing: Closing | None = None
        call = stub.Subscribe(self._request)
        try:
            async with asyncio.timeout(SILENCE) as bound:
                async for response in call:
                    bound.reschedule(clock.time() + SILENCE)
                    what = response.WhichOneof("response")
                    if what == "opened":
                        self.opened.set()
                        self._attempt = 0
                        self._broker.trouble = ""
                    elif what == "deliveries":
                        self._note(response.deliveries)
                        if self._faults.kills_consumer_of(self.group):
                            return True
                    elif what == "closing":
                        closing = response.closing
                        break
        finally:
            call.cancel()
        if closing:
            reason = ClosingReason.Name(closing.reason).removeprefix("CLOSING_REASON_").lower()
            self._tell(f"the broker closes its stream ({reason})")
            if closing.reason == CLOSING_REASON_REPLACED:  # not to come back under this name
                self._request.consumer_id = self.consumer_id = f"{self.consumer_id}+"
            await asyncio.sleep(closing.retry_after.ToTimedelta().total_seconds())
        else:
            self._tell("its stream ended")
        return False

    def _tell(self, why: str) -> None:
        if self._attempt in (0, 5):  # not every attempt of many
            self._screen.note(f"consumer {self.consumer_id} reconnects: {why}")

    def _note(self, batch: DeliveryBatch) -> None:
        ids = []
        for delivery in batch.deliveries:
            event = delivery.event
            self.group.note_delivery(event.event_id, event.event_type, event.position)
            ids.append((event.event_id, delivery.ack_id))
        self._unsent.put_nowait(ids)

    async def _ack(self, stub: SubscriberServiceAsyncStub) -> None:
        """Acks what was noted, as much in one call as waits by then."""
        while (batch := await self._unsent.get()) is not None:
            while len(batch) < ACK_SIZE and not self._unsent.empty():
                more = self._unsent.get_nowait()
                if more is None:
                    self._unsent.put_nowait(None)
                    break
                batch += more
            request = AckRequest(ack_ids=[ack_id for _, ack_id in batch])
            answer = await self._broker.insist(stub.Ack, request)
            for (event_id, _), result in zip(batch, answer.results, strict=False):  # one that is missing is not acked
                if result.outcome == SETTLE_OUTCOME_OUTDATED:
                    self.group.outdated += 1
                elif result.outcome in (SETTLE_OUTCOME_DONE, SETTLE_OUTCOME_ALREADY_SETTLED):
                    self.group.note_settled(event_id)
