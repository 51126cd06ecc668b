"""What a service does by SQL in the broker's database."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import asyncpg

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.conftest import Stores


@asynccontextmanager
async def service(stores: Stores) -> AsyncIterator[asyncpg.Connection]:
    """A connection of a service's own."""
    own = {"search_path": "public"}  # the tests' user has the name of the broker's schema
    connection = await asyncpg.connect(stores.postgres, server_settings=own)
    try:
        yield connection
    finally:
        await connection.close()


async def rewrite(connection: asyncpg.Connection, statement: str) -> None:
    """Change the log, which only grows."""
    async with connection.transaction():
        await connection.execute("ALTER TABLE eventbroker.events DISABLE TRIGGER append_only")
        await connection.execute(statement)
        await connection.execute("ALTER TABLE eventbroker.events ENABLE TRIGGER append_only")


async def publish(connection: asyncpg.Connection, **fields: Any) -> str:
    """Call eventbroker.publish with these named parameters, for those that are required with defaults; the event's
    id. One that is None is left out."""
    given: dict[str, Any] = {
        "tenant_id": "acme",
        "event_type": "user.created",
        "aggregate_type": "User",
        "aggregate_id": "u1",
    }
    if not {"content", "type_url"} & set(fields):
        given["data"] = '{"a": 1}'
    given |= fields
    named = {name: value for name, value in given.items() if value is not None}
    arguments = ", ".join(f"{name} => ${number}" for number, name in enumerate(named, 1))
    event_id: str = await connection.fetchval(f"SELECT eventbroker.publish({arguments})", *named.values())
    return event_id


async def settle(connection: asyncpg.Connection, *arguments: Any) -> bool:
    places = ", ".join(f"${number}" for number in range(1, len(arguments) + 1))
    first: bool = await connection.fetchval(f"SELECT eventbroker.settle({places})", *arguments)
    return first
