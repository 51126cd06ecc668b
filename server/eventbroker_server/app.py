"""The whole broker, put together: the only file that knows every part.

`running` starts the parts from the stores up, yields when calls are answered, and stops them in the mirror order: no
new calls, streams told to come back, deliveries handed back, what is queued flushed and relayed, connections closed,
engines stopped. A part that dies takes the broker down with its own exception.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import uuid
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from eventbroker_server.broker.announce import Announcer
from eventbroker_server.broker.append import AppendLimits, Writer
from eventbroker_server.broker.calls import Calls
from eventbroker_server.broker.causality import Causality
from eventbroker_server.broker.consumer import FlowControl
from eventbroker_server.broker.delivery import Rhythm
from eventbroker_server.broker.explain import Explainer
from eventbroker_server.broker.figures import Figures
from eventbroker_server.broker.groups import Groups
from eventbroker_server.broker.heads import Head
from eventbroker_server.broker.ordering import Ordering
from eventbroker_server.broker.outbox import OutboxDrain
from eventbroker_server.broker.publishing import Publishing
from eventbroker_server.broker.pulling import Pulling
from eventbroker_server.broker.reading import Readers
from eventbroker_server.broker.relay import Relay, Tail
from eventbroker_server.broker.retention import Retention
from eventbroker_server.broker.retry import Retries
from eventbroker_server.broker.settle import Settling
from eventbroker_server.broker.subscription import StreamTimes
from eventbroker_server.broker.subscriptions import Subscriptions
from eventbroker_server.broker.tasks import end
from eventbroker_server.domain.ack_id import Signer
from eventbroker_server.engines import embedded_engines
from eventbroker_server.engines.lock import alive
from eventbroker_server.http.app import pages
from eventbroker_server.http.collector import BrokerCollector
from eventbroker_server.http.probes import Probes
from eventbroker_server.http.server import serving_http
from eventbroker_server.postgres.dead_letter_store import PostgresDeadLetterStore
from eventbroker_server.postgres.event_log import PostgresEventLog
from eventbroker_server.postgres.group_store import PostgresGroupStore
from eventbroker_server.postgres.history import PostgresHistory
from eventbroker_server.postgres.migrate import migrate
from eventbroker_server.postgres.outbox import PostgresOutbox
from eventbroker_server.postgres.pool import open_pool
from eventbroker_server.postgres.reader import PostgresEventReader
from eventbroker_server.postgres.retry_store import PostgresRetryStore
from eventbroker_server.postgres.safety import check_postgres
from eventbroker_server.postgres.settled_in_sql import PostgresSettledInSql
from eventbroker_server.postgres.snapshots import PostgresSnapshotStore
from eventbroker_server.redis.connection import check_redis, open_redis
from eventbroker_server.redis.streams import RedisStreams
from eventbroker_server.rpc.auth import OpenProvider, check_host
from eventbroker_server.rpc.convert import EventCodec
from eventbroker_server.rpc.dead_letters import DeadLetterServicer
from eventbroker_server.rpc.door import Door
from eventbroker_server.rpc.event_store import EventStoreServicer
from eventbroker_server.rpc.groups import GroupServicer
from eventbroker_server.rpc.publish_stream import PublishStreams
from eventbroker_server.rpc.publisher import PublisherServicer, PublishLimits
from eventbroker_server.rpc.server import Server, target_of
from eventbroker_server.rpc.stats import StatsServicer
from eventbroker_server.rpc.subscriber import SubscriberServicer
from eventbroker_server.settings import default_data_dir

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence

    from eventbroker_server.domain.event import StoredEvent
    from eventbroker_server.settings import Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where the broker listens, and where its stores are; empty for one that was given, whose URL may be secret. `http`
    is the URL of metrics and probes, empty if there are none."""

    target: str
    postgres: str
    redis: str
    http: str


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Endpoints]:
    """The broker, answering calls. Raises StartupError, or whatever a part died of."""
    provider = OpenProvider()
    check_host(settings.host, provider)
    async with AsyncExitStack() as stack:
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        postgres_url, redis_url = await stack.enter_async_context(_engines(settings, tasks))

        pool = await stack.enter_async_context(open_pool(settings, postgres_url))
        postgres_version = await check_postgres(pool)
        installation = await migrate(pool, settings.shards)
        event_log, groups = PostgresEventLog(pool), PostgresGroupStore(pool)
        dead_letters, history = PostgresDeadLetterStore(pool), PostgresHistory(pool)

        redis = await stack.enter_async_context(open_redis(settings, redis_url))
        redis_version = await check_redis(redis)
        streams = RedisStreams(redis, settings.redis_prefix, process=uuid.uuid4().hex[:8])

        spawned: set[asyncio.Task[None]] = set()

        def spawn(work: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
            task = tasks.create_task(work, name=name)
            spawned.add(task)
            task.add_done_callback(spawned.discard)
            return task

        codec, signer = EventCodec(), Signer(installation.ack_key)
        figures = Figures(codec)
        announcer = Announcer(figures)
        retry_store = PostgresRetryStore(pool)
        ordering = Ordering(retry_store, streams, codec, announcer)
        retries = Retries(retry_store, event_log, streams, codec, ordering, announcer, figures)
        heads = [Head(event_log, shard, settings.sweep_interval) for shard in range(installation.shards)]
        times = StreamTimes(settings.heartbeat_interval, settings.stream_max_age)
        readers = Readers(PostgresEventReader(pool), heads, times, settings.max_streams)
        subscriptions = Subscriptions(
            event_log,
            groups,
            streams,
            codec,
            signer,
            retries,
            ordering,
            announcer,
            figures,
            shards=installation.shards,
            rhythm=Rhythm(settings.sweep_interval, settings.checkpoint_interval, settings.linger),
            times=times,
            heads=heads,
            default_ack_deadline=settings.ack_deadline,
            create_groups=settings.create_groups,
            most=settings.max_streams,
            spawn=spawn,
        )
        spawn(retries.run(subscriptions.memberships), "retries")
        stack.push_async_callback(end, spawned)

        relays: list[Relay] = []
        writers: list[Writer] = []
        heeds: list[Callable[[list[StoredEvent]], None]] = []
        for shard in range(installation.shards):
            relay = Relay(
                event_log,
                streams,
                codec,
                shard,
                subscriptions.relayed,
                settings.sweep_interval,
                settings.linger,
                Tail(settings.tail_age, settings.tail_bytes),
            )
            heed = _stored(relay, heads[shard], figures)
            writers.append(Writer(event_log, shard, _append_limits(settings), heed))
            heeds.append(heed)
            relays.append(relay)
            spawn(subscriptions.listen(shard), f"signals {shard}")
            spawn(heads[shard].run(), f"head {shard}")
            spawn(subscriptions.beat(shard, settings.process_ttl), f"heartbeat {shard}")
        spawn(Retention(dead_letters, settings.dead_letter_purge_interval, "dead letters").run(), "dead letter purge")
        spawn(Retention(PostgresSettledInSql(pool), 60.0, "settles in SQL").run(), "purge of settles in SQL")
        await stack.enter_async_context(_working("relay", relays, tasks))
        await stack.enter_async_context(_working("writer", writers, tasks))

        outbox = PostgresOutbox(pool, postgres_url, settings.postgres_timeout)
        drain = OutboxDrain(outbox, heeds, settings.sweep_interval)
        spawn(outbox.listen(drain.wake), "outbox signals")
        await stack.enter_async_context(_working("outbox", [drain], tasks))

        publishing, publish_streams = Publishing(writers), PublishStreams(settings.max_streams, settings.stream_max_age)
        spawn(announcer.run(publishing), "announcer")
        managed = Groups(event_log, groups, streams, subscriptions, announcer, installation.shards)
        calls, probes = Calls(), Probes(event_log, streams, spawn)
        http = ""
        if settings.http_port >= 0:
            app = pages(BrokerCollector(figures, calls, relays, subscriptions), probes)
            http = await stack.enter_async_context(serving_http(app, settings.http_host, settings.http_port, tasks))
        door = Door(provider, settings.max_calls, settings.stream_max_age, calls)
        server = Server(
            door,
            PublisherServicer(
                publishing,
                PublishLimits(settings.max_publish_events, settings.max_publish_bytes, settings.max_event_bytes),
                publish_streams,
            ),
            SubscriberServicer(
                subscriptions,
                Pulling(subscriptions, settings.pull_idle, spawn),
                Settling(signer, streams, subscriptions, retries, figures),
                FlowControl(settings.max_unsettled_events, settings.max_unsettled_bytes, settings.max_batch_events),
            ),
            EventStoreServicer(
                event_log,
                history,
                Causality(event_log, history),
                readers,
                codec,
                PostgresSnapshotStore(pool),
                settings.max_snapshot_bytes,
                installation.shards,
            ),
            DeadLetterServicer(dead_letters, groups, event_log),
            GroupServicer(
                managed,
                Explainer(managed, event_log, groups, retry_store, streams, installation.shards),
                settings.ack_deadline,
            ),
            StatsServicer(figures, groups, installation.shards),
            settings.max_publish_bytes,
        )
        port = await server.start(settings.host, settings.port)
        others = (publish_streams, readers)
        stack.push_async_callback(_drain, server, probes, subscriptions, others, settings.drain_timeout)
        await server.serving()
        probes.serving = True
        log.info(
            "serving",
            extra={
                "host": settings.host,
                "port": port,
                "http": http,
                "postgres": postgres_version,
                "redis": redis_version,
                "shards": installation.shards,
                "broker": streams.process,
            },
        )
        yield Endpoints(
            target_of(settings.host, port),
            postgres="" if settings.postgres_url else postgres_url,
            redis="" if settings.redis_url else redis_url,
            http=http,
        )


@asynccontextmanager
async def _engines(settings: Settings, tasks: asyncio.TaskGroup) -> AsyncIterator[tuple[str, str]]:
    """The URLs of both stores; an engine is started for each that has none."""
    if settings.postgres_url and settings.redis_url:
        yield settings.postgres_url, settings.redis_url
        return
    async with embedded_engines(
        Path(settings.data_dir or default_data_dir()),
        postgres=not settings.postgres_url,
        valkey=not settings.redis_url,
        postgres_bin=settings.postgres_bin,
        valkey_bin=settings.valkey_bin,
    ) as engines:
        watch = tasks.create_task(engines.wait_failed(), name="engines")
        try:
            yield (
                engines.postgres.url if engines.postgres else settings.postgres_url,
                engines.valkey.url if engines.valkey else settings.redis_url,
            )
        finally:
            watch.cancel()


def _stored(relay: Relay, head: Head, figures: Figures) -> Callable[[list[StoredEvent]], None]:
    """Heeds what a writer has stored."""

    def heed(events: list[StoredEvent]) -> None:
        relay.offer(events)
        head.moved(events[-1].position)
        figures.published(events)

    return heed


def _append_limits(settings: Settings) -> AppendLimits:
    return AppendLimits(
        flush_events=settings.flush_events,
        linger=settings.linger,
        backlog_events=settings.append_backlog_events,
        backlog_bytes=settings.append_backlog_bytes,
        cached_aggregates=settings.aggregate_cache,
    )


@asynccontextmanager
async def _working(
    kind: str, parts: Sequence[Relay | Writer | OutboxDrain], tasks: asyncio.TaskGroup
) -> AsyncIterator[None]:
    """Run parts until they have done what is waiting, for 10 s at most."""
    working = [tasks.create_task(part.run(), name=f"{kind} {number}") for number, part in enumerate(parts)]
    try:
        yield
    finally:
        for part in parts:
            part.close()
        await asyncio.wait(working, timeout=10)
        await end(working)


async def _drain(
    server: Server,
    probes: Probes,
    subscriptions: Subscriptions,
    others: Iterable[PublishStreams | Readers],
    timeout: float,
) -> None:
    """Take no more, tell streams to come back elsewhere, and wait for what is under way: `stop` alone returns before
    the handlers have given back what their consumers hold."""
    loop = asyncio.get_running_loop()
    until = loop.time() + timeout
    probes.serving = False
    await server.not_serving()
    subscriptions.close()
    for streams in others:
        streams.close()
    await subscriptions.drained(timeout)
    await server.stop(grace=min(5.0, max(1.0, until - loop.time())))
    await subscriptions.drained(2)
    log.info("stopped serving", extra={"streams_left": subscriptions.count})


@asynccontextmanager
async def announced(settings: Settings, endpoints: Endpoints) -> AsyncIterator[None]:
    """Write endpoints.json into the data directory, for tools on this machine, while the broker serves. A broker that
    has no engines there leaves that of a living one as it is."""
    path = Path(settings.data_dir or default_data_dir()) / "endpoints.json"
    other = _announced_by(path)
    if not (endpoints.postgres or endpoints.redis) and other and alive(other):
        log.info("%s is of the broker with the pid %d", path, other)
        yield
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(f".{os.getpid()}")
        draft.touch(mode=0o600)
        draft.write_text(json.dumps(asdict(endpoints) | {"pid": os.getpid()}))
        draft.replace(path)
    except OSError as exc:
        log.info("no endpoints.json: %s", exc)
    try:
        yield
    finally:
        if _announced_by(path) is None:  # else a broker with engines there has taken the place meanwhile
            path.unlink(missing_ok=True)


def _announced_by(path: Path) -> int | None:
    """The pid of another process that wrote it, if one did."""
    try:
        pid = int(json.loads(path.read_text())["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return pid if pid != os.getpid() else None
