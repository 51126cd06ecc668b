"""What can be chosen when the demo is run, and how it is told on the command line.

The defaults are the whole demo: a hundred thousand events, on a broker of its own. No option is read from the
environment but the target: what is emptied must be named.
"""

from __future__ import annotations

import argparse
import os
import re
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class CannotStart(Exception):
    """The demo cannot begin; the message is for people."""


@dataclass(frozen=True)
class Options:
    """What can be chosen. The timeout is in seconds."""

    run_id: str = field(default_factory=lambda: secrets.token_hex(4))
    target: str = ""  # empty: a broker of the demo's own
    redis_url: str = ""  # empty: Redis is not emptied
    events: int = 100_000
    tenants: int = 100
    users: int = 100_000
    seed: int = 1
    publishers: int = 4
    batch: int = 100
    faults: bool = True
    timeout: float = 300.0
    screenshot: str = ""


def read_options(argv: Sequence[str] | None) -> Options:
    """The options of a command line; what makes no sense ends the program with 2, as argparse does."""
    made = parser()
    options = Options(**vars(made.parse_args(argv)))
    if options.users < options.tenants:
        made.error("argument --users: every tenant needs a user")
    if options.redis_url and not options.target:
        made.error("argument --redis-url: only with --target; the demo knows the Redis of its own broker")
    return options


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="eventbroker-demo",
        description="Lets one day of a simulated platform go through a broker, breaks things, and counts every event.",
        argument_default=argparse.SUPPRESS,  # Options has them
    )
    add, default = made.add_argument, Options()
    target = os.environ.get("EVENTBROKER_TARGET", "")
    add("--target", default=target, help="the broker ($EVENTBROKER_TARGET; else one of the demo's own, then removed)")
    add("--redis-url", help="the broker's Redis, which is EMPTIED in the middle, with all that others keep there")
    add("--events", type=within(1, 100_000_000), help=f"events in the day ({default.events})")
    add("--tenants", type=within(1, 100_000), help=f"({default.tenants})")
    add("--users", type=within(1, 100_000_000), help=f"when the day begins ({default.users})")
    add("--seed", type=within(0, 2**63), help=f"the same seed gives the same day ({default.seed})")
    add("--run-id", type=run_id, help="begins all event ids; must be new (random)")
    add("--publishers", type=within(1, 256), help=f"that publish at the same time ({default.publishers})")
    add("--batch", type=within(1, 1_000), help=f"events in one Publish, of one tenant ({default.batch})")
    add("--no-faults", dest="faults", action="store_false", help="break nothing")
    add("--timeout", type=seconds, help=f"seconds until all must be done ({default.timeout:g})")
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
