"""`eventbroker serve`, `config`, `migrate`, `export` and `import` go on as eventbroker-server of the same Python: this
package knows the server as a program only. And `demo`."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated

import typer

from eventbroker_cli.command import told_examples, told_help
from eventbroker_cli.exits import Code, complain

if TYPE_CHECKING:
    from collections.abc import Callable

_NEEDED = ("asyncpg", "grpc_health", "grpc_reflection", "orjson", "prometheus_client", "redis", "starlette", "uvicorn")
PANEL = "Run it"
_PASS = {"allow_extra_args": True, "ignore_unknown_options": True}

Tenant = Annotated[str, typer.Option("--tenant", "-t", help="The events and groups of this tenant only.")]


def add_to(app: typer.Typer) -> None:
    _add(
        app,
        serve,
        "eventbroker serve\neventbroker serve --port 0 --data-dir ./data\neventbroker serve --config eb.toml",
    )
    app.command(
        "demo",
        help=told_help(demo),
        epilog=told_examples("eventbroker demo\neventbroker demo --events 5000 --target 127.0.0.1:50051"),
        context_settings=_PASS,
        add_help_option=False,
        rich_help_panel=PANEL,
    )(demo)
    _add(
        app, config, "eventbroker config\neventbroker config -o json | jq -r '.[] | select(.from != \"default\").name'"
    )
    _add(app, migrate, "eventbroker migrate --dry-run\neventbroker migrate")
    _add(app, export, "eventbroker export monday.ndjson\neventbroker export -t acme | zstd > acme.ndjson.zst")
    _add(app, import_, "eventbroker import monday.ndjson\nzstd -dc acme.ndjson.zst | eventbroker import")


def serve(
    config: Annotated[str, typer.Option("--config", metavar="FILE", help="Settings as TOML.")] = "",
    host: Annotated[str, typer.Option(help="The address to listen at.", show_default="127.0.0.1")] = "",
    port: Annotated[int, typer.Option(min=-1, help="0: any free one.", show_default="50051")] = -1,
    http_port: Annotated[int, typer.Option(min=-2, help="Of metrics; 0: any, -1: none.", show_default="9464")] = -2,
    data_dir: Annotated[str, typer.Option(metavar="DIR", help="Where the embedded engines keep their data.")] = "",
    postgres_url: Annotated[str, typer.Option(help="Instead of the embedded PostgreSQL.")] = "",
    redis_url: Annotated[str, typer.Option(help="Instead of the embedded Valkey.")] = "",
    log_level: Annotated[str, typer.Option(help="DEBUG, INFO, WARNING or ERROR.")] = "",
) -> None:
    """Run a broker until Ctrl-C or SIGTERM. What is not said comes from EVENTBROKER_... and the file of settings.

    All settings: `eventbroker config`, and docs/operating.md.
    """
    given = {
        "CONFIG": config,
        "HOST": host,
        "PORT": str(port) if port >= 0 else "",
        "HTTP_PORT": str(http_port) if http_port >= -1 else "",
        "DATA_DIR": data_dir,
        "POSTGRES_URL": postgres_url,
        "REDIS_URL": redis_url,
        "LOG_LEVEL": log_level,
    }
    os.environ.update({f"EVENTBROKER_{name}": value for name, value in given.items() if value})
    _become()


def demo(context: typer.Context) -> None:
    """Let one day of a simulated platform go through a broker, break things on the way, and account for every event.

    Without --target it starts a broker of its own, which it removes. `eventbroker demo --help` shows its options.
    """
    from eventbroker_cli.demo import main

    raise typer.Exit(main(context.args))


def config(
    output: Annotated[str, typer.Option("--output", "-o", metavar="table|json|ndjson")] = "table",
) -> None:
    """Show every setting of the server as it holds here, and where it comes from. Passwords are left out."""
    _become("config", "--output", output)


def migrate(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would run.")] = False,
) -> None:
    """Bring the schema of the database up to date, as a broker does when it starts."""
    _become("migrate", *(["--dry-run"] if dry_run else []))


def export(
    file: Annotated[str, typer.Argument(help="Else standard output.", show_default=False)] = "-",
    tenant: Tenant = "",
    after_position: Annotated[
        str, typer.Option(metavar="N[,N...]", help="Only later events; one for each shard.")
    ] = "",
) -> None:
    """Write events and groups from the database to a file, as lines of CloudEvents. Brokers may serve meanwhile."""
    more = ["--tenant", tenant] if tenant else []
    more += ["--after-position", after_position] if after_position else []
    _become("export", *more, "--", file)


def import_(file: Annotated[str, typer.Argument(help="Else standard input.", show_default=False)] = "-") -> None:
    """Take in what `export` wrote: of an installation into an empty one, of a tenant where it is new."""
    _become("import", "--", file)


def _add(app: typer.Typer, function: Callable[..., None], examples: str) -> None:
    name = function.__name__.rstrip("_")
    app.command(name, help=told_help(function), epilog=told_examples(examples), rich_help_panel=PANEL)(function)


def _become(*arguments: str) -> None:
    """Goes on as eventbroker-server; signals and the exit code are its own."""
    if missing := [name for name in _NEEDED if find_spec(name) is None]:
        complain(
            f"the server is not installed here ({missing[0]} is missing): pip install 'eventbroker[server,embedded]'"
        )
        raise typer.Exit(Code.USAGE)
    sys.stdout.flush()
    os.environ.pop("GRPC_VERBOSITY", None)
    os.execv(sys.executable, [sys.executable, "-m", "eventbroker_server", *arguments])  # noqa: S606 - no shell wanted
