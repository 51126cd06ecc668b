"""The commands `eventbroker-server config` and `eventbroker-server migrate`: what holds, and the schema brought up to
date by hand, such as before brokers of a new version start."""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from eventbroker_server.postgres.migrate import migrate, migrations
from eventbroker_server.postgres.safety import check_postgres
from eventbroker_server.settings import PREFIX, Settings, default_data_dir
from eventbroker_server.transfer.command import pool_of

if TYPE_CHECKING:
    from argparse import Namespace

    from eventbroker_server.postgres.pool import Pool

_SECRET = re.compile(r"((?<=://)[^/?#:]*:)[^/?#]*(?=@)|([?&]\w*password=)[^&]*")


def add_to(commands: Any) -> None:
    """Add both to the commands of a parser; `run` of what it parses takes the settings and that."""
    config = commands.add_parser("config", help="show the settings that hold", description=show_config.__doc__)
    config.add_argument("-o", "--output", choices=("table", "json", "ndjson"), default="table")
    config.set_defaults(run=show_config)
    up = commands.add_parser("migrate", help="bring the schema up to date", description=migrate_schema.__doc__)
    up.add_argument("--dry-run", action="store_true", help="only tell what would run")
    up.set_defaults(run=migrate_schema)


async def show_config(settings: Settings, arguments: Namespace) -> None:
    """Show every setting, its value, and where that comes from. Passwords are left out."""
    found = [
        {"name": field.name, "value": _told(getattr(settings, field.name)), "from": _origin(settings, field.name)}
        for field in fields(settings)
    ]
    if arguments.output == "json":
        _say(json.dumps(found, indent=2))
    elif arguments.output == "ndjson":
        _say("\n".join(json.dumps(each) for each in found))
    else:
        wide = max(len(each["name"]) for each in found)
        _say("\n".join(f"{each['name']:<{wide}}  {_value(each):<24}  {each['from']}".rstrip() for each in found))


async def migrate_schema(settings: Settings, arguments: Namespace) -> None:
    """Run the migrations that the database has not seen, as a broker does when it starts."""
    async with pool_of(settings) as pool:
        await check_postgres(pool)
        applied = await _applied(pool)
        waiting = [each.name for each in migrations() if each.number not in applied]
        if not arguments.dry_run:
            await migrate(pool, settings.shards)
    for name in waiting:
        _say(f"{name} {'would run' if arguments.dry_run else 'ran'}")
    if not waiting:
        _say(f"nothing to do: the database is at {migrations()[-1].name}")


async def _applied(pool: Pool) -> set[int]:
    async with pool.connection() as connection:
        if await connection.fetchval("SELECT to_regclass('eventbroker.migrations') IS NULL"):
            return set()
        return {row["number"] for row in await connection.fetch("SELECT number FROM eventbroker.migrations")}


def _told(value: Any) -> Any:
    """The value without passwords."""
    if not isinstance(value, str):
        return value
    return _SECRET.sub(lambda found: f"{found[1] or found[2]}***", value)


def _value(setting: dict[str, Any]) -> str:
    if setting["name"] == "data_dir" and not setting["value"]:
        return default_data_dir()
    return str(setting["value"])


def _origin(settings: Settings, name: str) -> str:
    variable = PREFIX + name.upper()
    if f"{variable}_FILE" in os.environ:
        return f"{variable}_FILE"
    if variable in os.environ:
        return variable
    return "default" if getattr(settings, name) == getattr(Settings(), name) else os.environ[f"{PREFIX}CONFIG"]


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
