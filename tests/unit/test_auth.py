from __future__ import annotations

import importlib
import pkgutil
from typing import Any

import eventbroker.v1
import pytest
from eventbroker.v1.dead_letter_service_pb2_grpc import DeadLetterServiceServicer
from eventbroker.v1.event_store_service_pb2_grpc import EventStoreServiceServicer
from eventbroker.v1.group_service_pb2_grpc import GroupServiceServicer
from eventbroker.v1.publisher_service_pb2_grpc import PublisherServiceServicer
from eventbroker.v1.stats_service_pb2_grpc import StatsServiceServicer
from eventbroker.v1.subscriber_service_pb2_grpc import SubscriberServiceServicer
from eventbroker_server.app import running
from eventbroker_server.broker.calls import Calls
from eventbroker_server.domain.errors import BadSetting, StartupError
from eventbroker_server.rpc.auth import METHODS, PUBLIC, OpenProvider, check_host, check_methods
from eventbroker_server.rpc.door import Door
from eventbroker_server.rpc.server import SERVICES, Server
from eventbroker_server.settings import Settings
from google.protobuf import descriptor_pool
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2


def methods_of(*files: str) -> set[str]:
    pool = descriptor_pool.Default()
    services = [service for file in files for service in pool.FindFileByName(file).services_by_name.values()]
    return {f"/{service.full_name}/{method.name}" for service in services for method in service.methods}


def own_methods() -> set[str]:
    """Every method of every service that the protos of this product declare, served or not."""
    modules = [module.name for module in pkgutil.iter_modules(eventbroker.v1.__path__) if module.name.endswith("_pb2")]
    files = [importlib.import_module(f"eventbroker.v1.{name}").DESCRIPTOR.name for name in modules]
    return methods_of(*files)


OWN = sorted(own_methods())


def make_server() -> Server:
    unimplemented: list[Any] = [
        PublisherServiceServicer,
        SubscriberServiceServicer,
        EventStoreServiceServicer,
        DeadLetterServiceServicer,
        GroupServiceServicer,
        StatsServiceServicer,
    ]
    publisher, subscriber, event_store, dead_letters, groups, stats = (servicer() for servicer in unimplemented)
    return Server(
        Door(OpenProvider(), 1, Calls()), publisher, subscriber, event_store, dead_letters, groups, stats, 1024
    )


def test_there_are_methods_to_check() -> None:
    assert "/eventbroker.v1.PublisherService/Publish" in OWN


@pytest.mark.parametrize("method", OWN)
def test_every_method_of_the_contract_asks_for_a_role(method: str) -> None:
    assert METHODS[method] is not PUBLIC


@pytest.mark.parametrize("method", OWN)
def test_every_method_of_the_contract_is_served(method: str) -> None:
    assert method.split("/")[1] in {service.full_name for service in SERVICES}


@pytest.mark.parametrize("method", sorted(methods_of(health_pb2.DESCRIPTOR.name, reflection_pb2.DESCRIPTOR.name)))
def test_health_and_reflection_are_for_all(method: str) -> None:
    assert METHODS[method] is PUBLIC


def test_no_public_method_is_of_this_product() -> None:
    public = {method for method, role in METHODS.items() if role is PUBLIC}
    assert {method.split("/")[1].split(".")[0] for method in public} == {"grpc"}


def test_no_row_names_an_unknown_method_of_this_product() -> None:
    assert {method for method in METHODS if method.startswith("/eventbroker.")} == set(OWN)


def test_a_served_method_without_a_row_is_named() -> None:
    with pytest.raises(StartupError, match=r"/x\.Y/New"):
        check_methods([*METHODS, "/x.Y/New"])


async def test_a_server_with_all_rows_can_be_made() -> None:
    make_server()


@pytest.mark.parametrize("method", OWN)
async def test_a_server_with_a_method_without_a_row_cannot_be_made(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(METHODS, method)
    with pytest.raises(StartupError, match=method):
        make_server()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1", "[::1]", "localhost"])
def test_an_open_server_may_listen_on_loopback(host: str) -> None:
    check_host(host, OpenProvider())


BEYOND = ["0.0.0.0", "::", "[::]", "10.0.0.1", "2001:db8::1", "example.org", "localhost.example.org", ""]  # noqa: S104


@pytest.mark.parametrize("host", BEYOND)
async def test_an_open_server_beyond_loopback_does_not_start(host: str) -> None:
    with pytest.raises(BadSetting, match="loopback only") as raised:
        async with running(Settings(host=host)):
            raise AssertionError("it runs")
    assert raised.value.setting == "host"


@pytest.mark.parametrize("host", BEYOND)
def test_a_server_that_knows_its_callers_may_listen_anywhere(host: str) -> None:
    class Knowing(OpenProvider):
        loopback_only = False

    check_host(host, Knowing())
