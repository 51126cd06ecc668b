"""One run of the demo: publishers, consumers and faults against a broker, until the books are settled.

Everything goes through the protobuf contract, as any client would. Groups are opened before the first event is
published and bear the run id, so that runs do not see each other. The run has one deadline, for all of it; what is open
by then is a mismatch in the report, never a hang.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import grpc
from eventbroker.v1.event_store_service_pb2_grpc import EventStoreServiceStub

from eventbroker_cli.demo.broker import Broker, Refused
from eventbroker_cli.demo.consumer import Consumer
from eventbroker_cli.demo.faults import Faults
from eventbroker_cli.demo.ledger import Ledger
from eventbroker_cli.demo.options import CannotStart
from eventbroker_cli.demo.platform import EVENT_TYPES, Platform
from eventbroker_cli.demo.publisher import Publishers
from eventbroker_cli.demo.report import Report
from eventbroker_cli.demo.sample import Sample, request_of

if TYPE_CHECKING:
    from eventbroker_cli.demo.options import Options
    from eventbroker_cli.demo.screen import LiveScreen

GROUPS = {  # name: event types, consumers
    "audit": (("*",), 3),
    "notifications": (("user.*",), 2),
    "permission-cache": (("role.*", "session.*"), 2),
}
BROKEN = "audit"  # the group whose consumer is killed, and whose deliveries time the faults

START_WITHIN = 10.0  # seconds for a broker to answer, and for all groups to open
LOOK = 0.02  # seconds between two looks at whether the books are settled


async def run_demo(options: Options, screen: LiveScreen) -> Report:
    """Runs the demo once. Raises CannotStart when there is no broker, or the run id was used before."""
    return await Run(options, screen).run()


class Run:
    """One run, from the first question to the report."""

    def __init__(self, options: Options, screen: LiveScreen) -> None:
        self._options, self._screen = options, screen
        groups = {name: event_types for name, (event_types, _) in GROUPS.items()}
        self._ledger = Ledger(options.run_id, options.events, EVENT_TYPES, groups)
        self._broker = Broker(options.target, self._ledger)
        self._sample = Sample(options.events, options.seed)
        self._publishers = Publishers(self._broker, self._ledger, count=options.publishers, batch=options.batch)
        self._now = asyncio.get_running_loop().time
        self._began = self._published = self._ended = 0.0  # 0: not yet
        self._failure = ""

    async def run(self) -> Report:
        deadline = self._now() + self._options.timeout
        await self._ask()
        faults = Faults(self._options, self._ledger.groups[BROKEN], self._screen)
        self._screen.begin(self._ledger)
        try:
            async with asyncio.timeout_at(deadline):
                await self._live(faults)
                self._screen.note("asking the store for a sample of the events")
                self._screen.refresh()
                await self._sample.check(self._broker)
        except* TimeoutError:
            trouble = self._broker.trouble and f"; the broker does not answer: {self._broker.trouble}"
            self._failure = f"not all was done within {self._options.timeout:g} s{trouble}"
        except* (CannotStart, Refused) as errors:
            self._failure = str(first_of(errors))
        if not self._began:
            raise CannotStart(self._failure)
        return self._report(faults)

    async def _ask(self) -> None:
        """Asks for the first event, to learn whether a broker answers and that the run id is new."""
        first, within = next(self._platform().day()), min(START_WITHIN, self._options.timeout)
        async with self._broker.connect() as channel:
            try:
                async with asyncio.timeout(within):
                    await self._broker.insist(EventStoreServiceStub(channel).GetEvent, request_of(first))
            except TimeoutError:
                why = f"within {within:g} s ({self._broker.trouble or 'silence'})"
                raise CannotStart(f"no broker answers at {self._broker.target} {why}") from None
            except Refused as refused:
                if refused.code is grpc.StatusCode.NOT_FOUND:
                    return
                raise CannotStart(f"{self._broker.target}: {refused}") from None
        raise CannotStart(f"the run id {self._options.run_id} was used before; choose another one")

    async def _live(self, faults: Faults) -> None:
        """Consumers and publishers side by side, until the books are settled and the faults are over."""
        async with asyncio.TaskGroup() as tasks:
            around = [tasks.create_task(self._refresh(), name="screen")]
            breaking = tasks.create_task(faults.run(), name="faults")
            consumers = [
                Consumer(f"{name}-{number}", self._ledger.groups[name], self._broker, faults, self._screen)
                for name, (_, count) in GROUPS.items()
                for number in range(1, count + 1)
            ]
            around += [tasks.create_task(self._keep(each, faults), name=each.consumer_id) for each in consumers]
            await self._opened(consumers)
            self._began = self._now()
            await self._publishers.publish(self._sample.of(self._platform().day()))
            self._published = self._now()
            while not self._ledger.settled:  # noqa: ASYNC110 - the books know nothing of tasks
                await asyncio.sleep(LOOK)
            self._ended = self._now()
            await breaking
            for task in around:
                task.cancel()

    async def _refresh(self) -> None:
        while True:
            self._screen.refresh()
            await asyncio.sleep(self._screen.interval)

    async def _keep(self, consumer: Consumer, faults: Faults) -> None:
        """Runs a consumer; should it be killed, another one takes its place a second later."""
        faults.killed(consumer.consumer_id, await consumer.run())
        await asyncio.sleep(1)
        heir = Consumer(f"{consumer.consumer_id}b", consumer.group, self._broker, faults, self._screen)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(heir.run(), name=heir.consumer_id)
            await heir.opened.wait()
            faults.replaced(heir.consumer_id)

    async def _opened(self, consumers: list[Consumer]) -> None:
        try:
            async with asyncio.timeout(START_WITHIN):
                for consumer in consumers:
                    await consumer.opened.wait()
        except TimeoutError:
            why = self._broker.trouble or "silence"
            raise CannotStart(f"the groups did not open within {START_WITHIN:g} s ({why})") from None

    def _platform(self) -> Platform:
        o = self._options
        return Platform(seed=o.seed, run_id=o.run_id, events=o.events, tenants=o.tenants, users=o.users)

    def _report(self, faults: Faults) -> Report:
        ended = self._ended or self._now()
        return Report(
            run_id=self._options.run_id,
            rows=self._ledger.rows(),
            mismatches=self._ledger.mismatches(),
            duplicates=self._ledger.duplicates,
            retries=self._ledger.retries,
            duration=ended - self._began,
            publish_duration=(self._published or ended) - self._began,
            faults=faults.happened,
            unproven=faults.failed,
            sample_checked=self._sample.checked,
            sample_wrong=self._sample.wrong,
            failure=self._failure,
        )


def first_of(group: BaseExceptionGroup[Exception]) -> Exception:
    """The first plain exception of a group of groups."""
    error: Exception | BaseExceptionGroup[Exception] = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
