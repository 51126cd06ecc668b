"""Events on their way to the broker: in requests of many, in their order, at a pace, each with its result.

A request that gets no answer is sent again with the same ids until the timeout, so each event is stored once.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from eventbroker.v1 import publisher_service_pb2 as pb
from eventbroker_client import EventBrokerError, Unavailable

from eventbroker_cli.exits import Failed, code_of, sentence_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator

    from eventbroker.v1.event_pb2 import Event

    from eventbroker_cli.drafts import Draft
    from eventbroker_cli.link import Link

_MOST_EVENTS = 500
_MOST_BYTES = 1_000_000  # of a request; what is larger goes alone, and the broker decides


@dataclass(slots=True)
class Counts:
    """How it went."""

    stored: int = 0
    duplicates: int = 0
    refused: int = 0

    def add(self, result: pb.PublishResult) -> None:
        self.stored += result.outcome == pb.PUBLISH_OUTCOME_STORED
        self.duplicates += result.outcome == pb.PUBLISH_OUTCOME_DUPLICATE
        self.refused += result.outcome == pb.PUBLISH_OUTCOME_REFUSED


@dataclass(slots=True)
class Sender:
    """`told` is called for each draft with its result, in their order; `rate` is in events a second, 0: no limit."""

    link: Link
    told: Callable[[Draft, pb.PublishResult], None]
    rate: float = 0.0
    counts: Counts = field(default_factory=Counts)
    _sent: int = 0
    _begun: float = 0.0

    async def send(self, drafts: AsyncIterator[list[Draft]]) -> Counts:
        """Raises Failed when the broker does not answer: what came before is told."""
        self._begun = asyncio.get_running_loop().time()
        most = max(1, min(_MOST_EVENTS, int(self.rate / 10))) if self.rate else _MOST_EVENTS
        async for some in drafts:
            for batch in _batches(some, most):
                await self._flush(batch)
        return self.counts

    async def _flush(self, batch: list[Draft]) -> None:
        await self._wait()
        self._sent += len(batch)
        events = [draft.event for draft in batch if draft.event is not None]
        results = iter(await self._publish(batch, events) if events else ())
        for draft in batch:
            result = next(results) if draft.event is not None else _refused("INVALID_ARGUMENT", draft.fault)
            self.counts.add(result)
            self.told(draft, result)

    async def _publish(self, batch: list[Draft], events: list[Event]) -> list[pb.PublishResult]:
        request = pb.PublishRequest(events=events, mode=pb.PUBLISH_MODE_PER_EVENT)
        try:
            response = await self.link.connection.call(self.link.publisher.Publish, request)
            return list(response.results)
        except EventBrokerError as error:
            told = sentence_of(error, self.link.target.url)
            if len(events) == 1 and not isinstance(error, Unavailable):
                return [_refused(error.reason, told, events[0].event_id)]
            kept = f"{self.counts.stored + self.counts.duplicates} before are stored"
            unknown = ", and of these it is not known" if isinstance(error, Unavailable) else ""
            raise Failed(
                f"lines {batch[0].line} to {batch[-1].line}: {told}. {kept}{unknown}", code_of(error)
            ) from None

    async def _wait(self) -> None:
        if self.rate:
            due = self._begun + self._sent / self.rate
            await asyncio.sleep(due - asyncio.get_running_loop().time())


def _batches(drafts: Iterable[Draft], most: int) -> Iterator[list[Draft]]:
    batch: list[Draft] = []
    size = 0
    for draft in drafts:
        bulk = draft.event.ByteSize() if draft.event is not None else 0
        if batch and (len(batch) >= most or size + bulk > _MOST_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(draft)
        size += bulk
    if batch:
        yield batch


def why(result: pb.PublishResult) -> str:
    """Why an event was refused."""
    if result.error.violations:
        each = (f"{one.field.partition('].')[2] or one.field} {one.description}" for one in result.error.violations)
        return "; ".join(each)
    return result.error.message


def _refused(reason: str, message: str, event_id: str = "") -> pb.PublishResult:
    error = pb.PublishError(reason=reason, message=message)
    return pb.PublishResult(event_id=event_id, outcome=pb.PUBLISH_OUTCOME_REFUSED, error=error)
