"""Metrics and probes, over HTTP."""

from __future__ import annotations

import asyncio
import json
import signal
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

import grpc
import pytest
import pytest_asyncio
from eventbroker.v1.group_service_pb2 import WaitForGroupRequest
from eventbroker.v1.subscriber_service_pb2 import NACK_ACTION_DEAD_LETTER, START_POINT_LATEST
from eventbroker_server.app import running
from eventbroker_server.domain.errors import BadSetting
from eventbroker_server.domain.group import GroupKey
from prometheus_client.parser import text_string_to_metric_families

from tests.client import TIMEOUT, Client, event
from tests.faults.proxy import Proxy
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from eventbroker_server.app import Endpoints

    from tests.conftest import BrokerProcess, Stores

    SpawnBroker = Callable[..., Awaitable[BrokerProcess]]

TYPE = "user.created"
COUNTS = ("delivered", "redelivered", "acked", "failed", "dead_lettered")


async def page(url: str) -> tuple[int, str]:
    """The status and the text of a page."""

    def get() -> tuple[int, str]:
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - of the broker under test
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    return await asyncio.to_thread(get)


class Scrape:
    """What Prometheus reads."""

    def __init__(self, text: str) -> None:
        self.samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]

    def value(self, name: str, **labels: str) -> float:
        """The sum of the samples that have these labels, and maybe more; 0 of none."""
        return sum(each.value for each in self.samples if each.name == name and labels.items() <= each.labels.items())


@pytest_asyncio.fixture
async def endpoints(stores: Stores) -> AsyncIterator[Endpoints]:
    async with running(stores.settings()) as endpoints:
        yield endpoints


@pytest_asyncio.fixture
async def broker(endpoints: Endpoints) -> AsyncIterator[Client]:
    async with Client(endpoints.target) as client:
        yield client


async def scrape(endpoints: Endpoints) -> Scrape:
    status, text = await page(f"{endpoints.http}/metrics")
    assert status == 200
    return Scrape(text)


async def started(endpoints: Endpoints, method: str) -> float:
    return (await scrape(endpoints)).value("grpc_server_started_total", grpc_method=method)


async def counts(endpoints: Endpoints) -> dict[str, float]:
    """What is counted of events of the type, without what is 0."""
    found = await scrape(endpoints)
    of_group = {name: found.value(f"eventbroker_{name}_total", event_type=TYPE, group="*:billing") for name in COUNTS}
    all_counts = {"published": found.value("eventbroker_published_total", event_type=TYPE)} | of_group
    return {name: value for name, value in all_counts.items() if value}


async def test_each_step_of_an_event_moves_its_counters_and_no_other(endpoints: Endpoints, broker: Client) -> None:
    assert await counts(endpoints) == {}
    async with await broker.subscribe("billing", TYPE, start=START_POINT_LATEST) as stream:
        await broker.publish(event(), event())
        acked, nacked = await stream.take(2)
        assert await counts(endpoints) == {"published": 2, "delivered": 2}
        await broker.ack([acked.ack_id])
        assert await counts(endpoints) == {"published": 2, "delivered": 2, "acked": 1}
        await broker.nack([nacked.ack_id], seconds=0)
        (again,) = await stream.take(1)
        retried = {"published": 2, "delivered": 3, "redelivered": 1, "acked": 1, "failed": 1}
        assert await counts(endpoints) == retried
        await broker.nack([again.ack_id], NACK_ACTION_DEAD_LETTER, reason="broken")
        assert await counts(endpoints) == retried | {"failed": 2, "dead_lettered": 1}
    found = await scrape(endpoints)
    assert found.value("eventbroker_publish_to_deliver_seconds_count", event_type=TYPE) == 2
    assert found.value("eventbroker_publish_to_deliver_seconds_bucket", event_type=TYPE, le="+Inf") == 2


async def test_retry_of_an_ephemeral_group_says_nothing_of_latency(endpoints: Endpoints, broker: Client) -> None:
    async def relays() -> bool:
        found = await scrape(endpoints)
        lag, head = (found.value(f"eventbroker_{name}", shard="0") for name in ("relay_lag_positions", "head_position"))
        return (lag, head) == (0, 1)

    await broker.publish(event())
    await eventually(relays)  # a group that is opened before that gets its first events as history
    async with await broker.subscribe("", TYPE, start=START_POINT_LATEST) as stream:
        await broker.publish(event())
        (delivery,) = await stream.take(1)
        await broker.nack([delivery.ack_id])
        await stream.take(1)
    found = await scrape(endpoints)
    assert found.value("eventbroker_delivered_total", event_type=TYPE, group="*:~") == 2
    assert found.value("eventbroker_redelivered_total", event_type=TYPE, group="*:~") == 1
    assert found.value("eventbroker_publish_to_deliver_seconds_count", event_type=TYPE) == 1


async def test_calls_are_counted_by_method_and_code(endpoints: Endpoints, broker: Client) -> None:
    await broker.publish(event())
    with pytest.raises(grpc.aio.AioRpcError):
        await broker.publish(event(event_type="?"))
    stream = await broker.subscribe("billing")

    async def handled(method: str, **labels: str) -> float:
        return (await scrape(endpoints)).value("grpc_server_handled_total", grpc_method=method, **labels)

    assert await handled("Publish", grpc_code="OK", grpc_type="unary") == 1
    assert await handled("Publish", grpc_code="INVALID_ARGUMENT") == 1
    assert await handled("Subscribe") == 0
    found = await scrape(endpoints)
    assert found.value("grpc_server_handling_seconds_count", grpc_method="Publish") == 2
    assert found.value("grpc_server_started_total", grpc_method="Subscribe", grpc_type="server_stream") == 1
    assert found.value("eventbroker_streams") == 1
    stream.close()
    await eventually(lambda: handled("Subscribe", grpc_code="CANCELLED"))


async def test_positions_and_lags_are_told(endpoints: Endpoints, broker: Client) -> None:
    async with await broker.subscribe("billing", TYPE, tenant_id="acme", start=START_POINT_LATEST) as stream:
        await broker.publish(*(event() for _ in range(3)))
        deliveries = await stream.take(3)

        async def lag_is(positions: int) -> bool:
            found = await scrape(endpoints)
            group = str(GroupKey("acme", "billing"))
            old = found.value("eventbroker_group_oldest_unsettled_seconds", group=group) > 0
            return found.value("eventbroker_group_lag_positions", group=group) == positions and old == bool(positions)

        await eventually(lambda: lag_is(3))
        found = await scrape(endpoints)
        assert found.value("eventbroker_head_position", shard="0") == 3
        assert found.value("eventbroker_relay_lag_positions", shard="0") == 0
        await broker.ack(delivery.ack_id for delivery in deliveries)
        await eventually(lambda: lag_is(0))


async def test_ready_while_postgres_answers_and_alive_all_the_time(stores: Stores) -> None:
    async with Proxy(stores.postgres) as postgres:
        settings = stores.settings(postgres_url=postgres.url, postgres_timeout=2.0)
        async with running(settings) as endpoints:

            async def ready() -> tuple[int, dict[str, str]]:
                status, text = await page(f"{endpoints.http}/readyz")
                return status, json.loads(text)

            async def ready_with(status: int, state: str) -> bool:
                told = await ready()
                return told == (status, {"broker": "serving", "postgres": state, "redis": "ok"})

            assert await ready_with(200, "ok")
            for disturb in (postgres.cut, postgres.freeze):
                disturb()
                await eventually(lambda: ready_with(503, "away"))
                assert (await page(f"{endpoints.http}/livez"))[0] == 200
                postgres.restore()
                await eventually(lambda: ready_with(200, "ok"), timeout=20)


async def test_ready_without_redis_which_is_told(stores: Stores) -> None:
    async with Proxy(stores.redis) as redis, running(stores.settings(redis_url=redis.url)) as endpoints:
        redis.cut()

        async def redis_is_away() -> bool:
            status, text = await page(f"{endpoints.http}/readyz")
            assert status == 200
            return bool(json.loads(text)["redis"] == "away")

        await eventually(redis_is_away)
        redis.restore()


async def test_not_ready_while_it_drains(stores: Stores) -> None:
    async with running(stores.settings()) as endpoints:
        client = Client(endpoints.target)
        await client.create_group("billing")
        await client.publish(event())
        request = WaitForGroupRequest(name="billing", event_tenant_id="acme", position=1)
        call = client.groups.WaitForGroup(request, timeout=TIMEOUT)  # it is under way, and so holds up the drain
        await eventually(lambda: started(endpoints, "WaitForGroup"))

        async def drains() -> bool:
            status, text = await page(f"{endpoints.http}/readyz")
            return status == 503 and json.loads(text)["broker"] == "not serving"

        async def let_go() -> None:
            await eventually(drains)
            call.cancel()

        watching = asyncio.create_task(let_go())
    async with client:
        await watching


async def test_process_tells_where_its_pages_are_and_stops_by_a_signal(spawn_broker: SpawnBroker) -> None:
    process = await spawn_broker()
    assert (await page(process.endpoints["http"] + "/livez"))[0] == 200
    process.signal(signal.SIGTERM)
    assert await process.ended() == 0


async def test_port_in_use_is_a_bad_setting(stores: Stores, endpoints: Endpoints) -> None:
    port = int(endpoints.http.rpartition(":")[2])
    with pytest.raises(ExceptionGroup) as raised:
        async with running(stores.settings(http_port=port)):
            pass
    (error,) = raised.value.exceptions
    assert isinstance(error, BadSetting)
    assert "EVENTBROKER_HTTP_PORT" in str(error)


async def test_none_is_served_if_it_is_off(stores: Stores) -> None:
    async with running(stores.settings(http_port=-1)) as endpoints:
        assert endpoints.http == ""


async def test_unknown_page_is_not_found(endpoints: Endpoints) -> None:
    assert (await page(f"{endpoints.http}/"))[0] == 404
