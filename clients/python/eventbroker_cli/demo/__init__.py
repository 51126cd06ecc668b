"""The demo: one day of a platform with a hundred tenants goes through a broker, and every event is accounted for.

`main` is the command `eventbroker-demo`. It needs a broker that runs, and rich for its screen.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import secrets
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

OK, DOES_NOT_ADD_UP, CANNOT_START, INTERRUPTED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the demo. 0: everything adds up; 1: it does not; 2: bad usage, or no broker answers."""
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # before grpc is loaded: its chatter would tear the screen
    arguments = parser().parse_args(argv)
    if arguments.users < arguments.tenants:
        parser().error("argument --users: every tenant needs a user")
    try:
        from eventbroker_cli.demo.screen import LiveScreen
    except ModuleNotFoundError as error:
        print(f"eventbroker-demo: {error.name} is missing: pip install 'eventbroker[cli]'", file=sys.stderr)
        return CANNOT_START
    from eventbroker_cli.demo.run import CannotStart, Options, run_demo

    options = Options(
        run_id=arguments.run_id,
        target=arguments.target,
        events=arguments.events,
        tenants=arguments.tenants,
        users=arguments.users,
        seed=arguments.seed,
        publishers=arguments.publishers,
        batch=arguments.batch,
        redis_url=arguments.redis_url,
        faults=not arguments.no_faults,
        timeout=arguments.timeout,
    )
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    with suppress(ImportError):
        import uvloop

        loop_factory = uvloop.new_event_loop
    try:
        with LiveScreen(options) as screen, asyncio.Runner(loop_factory=loop_factory) as runner:
            report = runner.run(run_demo(options, screen))
    except CannotStart as error:
        print(f"eventbroker-demo: {error}", file=sys.stderr)
        return CANNOT_START
    except KeyboardInterrupt:
        return INTERRUPTED
    screen.show(report)
    if arguments.screenshot:
        screen.save(report, arguments.screenshot)
    return OK if report.adds_up else DOES_NOT_ADD_UP


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(
        prog="eventbroker-demo",
        description="Lets one day of a simulated platform go through a broker, breaks things, and counts every event.",
    )
    env = os.environ.get
    add = made.add_argument
    add("--target", default=env("EVENTBROKER_TARGET") or "127.0.0.1:50051", help="the broker (%(default)s)")
    add("--events", type=within(1, 100_000_000), default=100_000, help="events in the day (%(default)s)")
    add("--tenants", type=within(1, 100_000), default=100, help="(%(default)s)")
    add("--users", type=within(1, 100_000_000), default=100_000, help="when the day begins (%(default)s)")
    add("--seed", type=within(0, 2**63), default=1, help="the same seed gives the same day (%(default)s)")
    add("--run-id", type=run_id, default=secrets.token_hex(4), help="begins all event ids; must be new (random)")
    add("--publishers", type=within(1, 256), default=4, help="that publish at the same time (%(default)s)")
    add("--batch", type=within(1, 1_000), default=100, help="events in one Publish, of one tenant (%(default)s)")
    add(
        "--redis-url",
        default=env("EVENTBROKER_REDIS_URL") or "",
        help="the broker's Redis, EMPTIED in the middle with all that others keep there ($EVENTBROKER_REDIS_URL)",
    )
    add("--no-faults", action="store_true", help="break nothing")
    add("--timeout", type=seconds, default=300.0, help="seconds until all must be acked (%(default)g)")
    add("--screenshot", metavar="FILE.svg", help="save the final screen as a picture")
    return made


class within:  # noqa: N801  # reads as a word of the table above
    """An argparse type: a whole number between two bounds, both included."""

    def __init__(self, least: int, most: int) -> None:
        self._least, self._most = least, most

    def __call__(self, text: str) -> int:
        number = int(text.replace("_", ""))
        if not self._least <= number <= self._most:
            raise argparse.ArgumentTypeError(f"{number} is not within {self._least} and {self._most}")
        return number

    def __repr__(self) -> str:
        return "number"  # argparse shows this when the text is no number at all


def run_id(text: str) -> str:
    """An argparse type: a run id is part of names, and short enough for them."""
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", text):
        raise argparse.ArgumentTypeError("1 to 64 characters of A-Z a-z 0-9 . _ -")
    return text


def seconds(text: str) -> float:
    """An argparse type: a positive number of seconds."""
    number = float(text)
    if not 0 < number < 1e9:
        raise argparse.ArgumentTypeError("a positive number of seconds")
    return number
