"""The tree of commands. Each file beside this one has the commands of one noun, and adds them here."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer

from eventbroker_cli import (
    aggregate,
    bench,
    context_commands,
    dead_letters,
    doctor,
    events,
    group_changes,
    group_places,
    groups,
    publish,
    server,
    stats,
    subscribe,
    tail,
    top,
)
from eventbroker_cli.command import group

ABOUT = """Publish, consume, look at and run the event broker.

Every command that asks a broker takes -o table|json|ndjson, --url, --context, --tenant and --timeout.

Exit codes: 0 done; 1 not all of it, or something is wrong; 2 the command line or a value; 3 not found; 4 a conflict;
5 not allowed; 6 no answer, try again; 130 interrupted; 141 the reader of the output went away.
"""

_LOOK = "Look and mend"

app = typer.Typer(
    help=ABOUT, no_args_is_help=True, rich_markup_mode="rich", pretty_exceptions_enable=False, add_completion=True
)


def _print_version(asked: bool) -> None:
    if not asked:
        return
    try:
        typer.echo(f"eventbroker {version('eventbroker')}")
    except PackageNotFoundError:
        typer.echo("eventbroker, not installed")
    raise typer.Exit


@app.callback(help=ABOUT)
def _program(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None: ...


publish.add_to(app)
subscribe.add_to(app)
tail.add_to(app)
events.add_to(group("events", "What is stored: list, show, by aggregate, as a tree of causes.", app, _LOOK))
aggregate.add_to(app)
of_groups = group("groups", "Consumer groups: look at them, change, pause, move and explain.", app, _LOOK)
groups.add_to(of_groups)
group_changes.add_to(of_groups)
group_places.add_to(of_groups)
dead_letters.add_to(group("dlq", "Dead letters: look at what a group gave up, redrive or forget it.", app, _LOOK))
stats.add_to(app)
top.add_to(app)
doctor.add_to(app)
bench.add_to(app)
server.add_to(app)
context_commands.add_to(group("context", "Names for brokers, so that --url need not be said.", app, server.PANEL))
