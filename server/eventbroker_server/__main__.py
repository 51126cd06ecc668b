"""The command `eventbroker-server`: runs the broker until SIGTERM or Ctrl-C, or one of the commands for upkeep."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import signal
import sys

import uvloop

from eventbroker_server import logs, upkeep
from eventbroker_server.app import Endpoints, announced, running
from eventbroker_server.domain.errors import BrokerError
from eventbroker_server.settings import Settings, default_data_dir
from eventbroker_server.transfer import command

log = logging.getLogger(__name__)

READY = """
eventbroker is ready on {target}  (Ctrl-C stops it)

  publish:    grpcurl -plaintext -d '{{"events": [{{"event_id": "1", "event_type": "user.created",
                "aggregate_type": "User", "aggregate_id": "u1", "tenant_id": "acme",
                "timestamp": "2026-01-01T00:00:00Z", "json": "{{}}"}}]}}' {target} \\
                eventbroker.v1.PublisherService/Publish
  subscribe:  grpcurl -plaintext -d '{{"group": "demo", "event_types": ["user.*"]}}' {target} \\
                eventbroker.v1.SubscriberService/Subscribe

  With buf:   buf curl --http2-prior-knowledge --protocol grpc -d '{{"group": "demo", "event_types": ["user.*"]}}' \\
                http://{target}/eventbroker.v1.SubscriberService/Subscribe
  Or:         eventbroker publish user.created User/u1 '{{}}' --tenant acme --url {target}
              eventbroker subscribe --group demo --tenant acme --url {target}
              (eventbroker and buf are in .venv/bin after `make run`)
"""


async def _serve(settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with running(settings) as endpoints, announced(settings, endpoints):
        _say_ready(settings, endpoints)
        _collect_less_often()
        await stop.wait()
        log.info("stopping")


def _collect_less_often() -> None:
    """What is there by now stays, and a broker makes many tuples and no cycles to speak of: the collector's default
    rhythm took a tenth of its time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def _say_ready(settings: Settings, endpoints: Endpoints) -> None:
    sys.stdout.write(READY.format(target=endpoints.target))
    if endpoints.postgres or endpoints.redis:
        sys.stdout.write(f"  Events are kept in {settings.data_dir or default_data_dir()}\n")
    sys.stdout.flush()


def main() -> None:
    """Exit 0 after an orderly stop, 1 with one line when the broker cannot start or go on, or a command is refused."""
    parser = argparse.ArgumentParser(prog="eventbroker-server", description="Without a command: run the broker.")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    command.add_to(commands)
    upkeep.add_to(commands)
    arguments = parser.parse_args()
    try:
        settings = Settings.load()
        logs.set_up(settings.log_level)
        uvloop.run(arguments.run(settings, arguments) if "run" in arguments else _serve(settings))
    except KeyboardInterrupt:  # of a command; the broker stops in order
        sys.exit(130)
    except BrokerError as exc:
        sys.exit(f"eventbroker: {exc}")
    except BaseExceptionGroup as group:
        told, rest = group.split(BrokerError)
        if rest is not None:
            raise
        sys.exit("\n".join(f"eventbroker: {exc}" for exc in _leaves(told)))


def _leaves(group: BaseExceptionGroup[BrokerError] | None) -> list[BaseException]:
    leaves: list[BaseException] = []
    for exc in group.exceptions if group else ():
        leaves += _leaves(exc) if isinstance(exc, BaseExceptionGroup) else [exc]
    return leaves


if __name__ == "__main__":
    main()
