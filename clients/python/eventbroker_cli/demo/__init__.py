"""The demo: one day of a platform with a hundred tenants goes through a broker, and every event is accounted for.

`main` is the command `eventbroker-demo`. It needs rich for its screen, and either a broker that runs or the server's
packages for one of its own. It ends with 0 when everything adds up, with 1 when something does not or the faults did
not bite, and with 2 when it could not begin.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from eventbroker_cli.demo.options import CannotStart, Options, read_options
from eventbroker_cli.demo.own_broker import own_broker

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

OK, DOES_NOT_ADD_UP, CANNOT_START, INTERRUPTED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the demo and answers the exit code."""
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # before grpc is loaded: its chatter would tear the screen
    for number in (signal.SIGTERM, signal.SIGHUP):  # end it as Ctrl-C does, so that its broker is stopped
        signal.signal(number, lambda *_: signal.raise_signal(signal.SIGINT))
    options = read_options(argv)
    try:
        with ExitStack() as stack:
            if not options.target:
                target, redis_url = stack.enter_context(own_broker())
                options = replace(options, target=target, redis_url=redis_url)
            return show(options)
    except CannotStart as error:
        print(f"eventbroker-demo: {error}", file=sys.stderr)
        return CANNOT_START
    except KeyboardInterrupt:
        return INTERRUPTED


def show(options: Options) -> int:
    """Runs the demo on a broker that runs."""
    try:
        from eventbroker_cli.demo.screen import LiveScreen
    except ModuleNotFoundError as error:
        raise CannotStart(f"{error.name} is missing: pip install 'eventbroker[cli]'") from None
    from eventbroker_cli.demo.run import run_demo

    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    with suppress(ImportError):
        import uvloop

        loop_factory = uvloop.new_event_loop
    with LiveScreen(options) as screen, asyncio.Runner(loop_factory=loop_factory) as runner:
        report = runner.run(run_demo(options, screen))
    screen.show(report)
    if options.screenshot:
        screen.save(report, options.screenshot)
    return OK if report.adds_up and not report.unproven else DOES_NOT_ADD_UP
