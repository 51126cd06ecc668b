"""The commands `eventbroker-server export` and `eventbroker-server import`, with the settings that the broker has."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from eventbroker_server.domain.errors import TransferRefused
from eventbroker_server.domain.names import NAME_RULE, is_name
from eventbroker_server.engines import embedded_postgres
from eventbroker_server.postgres.pool import open_pool
from eventbroker_server.settings import default_data_dir
from eventbroker_server.transfer.exporting import exported
from eventbroker_server.transfer.importing import import_export

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import AsyncIterator, Iterator

    from eventbroker_server.postgres.pool import Pool
    from eventbroker_server.settings import Settings

log = logging.getLogger(__name__)

_TIMEOUT = 60.0  # seconds for a small statement: nobody waits for it, and the database may be busy


def add_to(commands: Any) -> None:
    """Add both to the commands of a parser; `run` of what it parses takes the settings and that."""
    export = commands.add_parser("export", help="write events and groups to a file", description=export_file.__doc__)
    export.add_argument("file", nargs="?", default="-", help="default: standard output")
    export.add_argument("--tenant", default="", help="the events and groups of this tenant only")
    export.add_argument(
        "--after-position",
        default="",
        metavar="N[,N...]",
        help="only events after this position; with several shards one for each, as the heads of the last export",
    )
    export.set_defaults(run=export_file)
    load = commands.add_parser("import", help="take in what export wrote", description=import_file.__doc__)
    load.add_argument("file", nargs="?", default="-", help="default: standard input")
    load.set_defaults(run=import_file)


async def export_file(settings: Settings, arguments: Namespace) -> None:
    """Write the events and the groups as lines of JSON. Brokers may serve meanwhile."""
    try:
        after = [int(text) for text in arguments.after_position.split(",") if arguments.after_position]
    except ValueError as exc:
        raise TransferRefused(f"--after-position must be whole numbers with commas between: {exc}") from exc
    if arguments.tenant and not is_name(arguments.tenant):
        raise TransferRefused(f"--tenant {NAME_RULE}")
    size = 0
    with _written(arguments.file) as file:
        async with pool_of(settings) as pool, aclosing(exported(pool, arguments.tenant, after)) as pages:
            async for page in pages:
                await asyncio.to_thread(file.write, page)
                size += len(page)
    log.info("exported", extra={"bytes": size})


async def import_file(settings: Settings, arguments: Namespace) -> None:
    """Take in an export: of an installation into an empty one, of a tenant into one that does not have it."""
    with _opened(arguments.file) as file:
        async with pool_of(settings) as pool:
            imported = await import_export(pool, file, settings.shards)
    log.info("imported", extra=imported._asdict())


@asynccontextmanager
async def pool_of(settings: Settings) -> AsyncIterator[Pool]:
    patient = replace(settings, postgres_timeout=max(settings.postgres_timeout, _TIMEOUT), postgres_pool_size=1)
    async with _postgres(settings) as url, open_pool(patient, url) as pool:
        yield pool


@asynccontextmanager
async def _postgres(settings: Settings) -> AsyncIterator[str]:
    """The URL of the broker's database. The embedded one belongs to a broker that runs, or runs for this command."""
    if settings.postgres_url:
        yield settings.postgres_url
        return
    directory = Path(settings.data_dir or default_data_dir())
    if url := _of_running_broker(directory):
        yield url
        return
    async with embedded_postgres(directory, settings.postgres_bin) as postgres:
        yield postgres.url


def _of_running_broker(directory: Path) -> str:
    """What a broker that serves on this directory says of its PostgreSQL; empty without one."""
    try:
        pid = int((directory / "lock").read_text())
        os.kill(pid, 0)
        url: str = json.loads((directory / "endpoints.json").read_text())["postgres"]
    except (OSError, ValueError, KeyError):
        return ""
    return url


@contextmanager
def _written(name: str) -> Iterator[BinaryIO]:
    """A file that appears when it is complete, for its owner only."""
    if name == "-":
        with _told(name), os.fdopen(os.dup(1), "wb") as file:
            yield file
        return
    draft = Path(f"{name}.{os.getpid()}.partial")
    try:
        with _told(name), os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        draft.replace(name)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def _opened(name: str) -> Iterator[BinaryIO]:
    with _told(name):
        file = os.fdopen(os.dup(0), "rb") if name == "-" else Path(name).open("rb")  # noqa: SIM115 - closed below
    with file:
        yield file


@contextmanager
def _told(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise TransferRefused(f"{'the standard stream' if name == '-' else name} fails: {exc}") from exc
