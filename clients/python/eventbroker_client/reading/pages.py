"""Lists, page by page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from eventbroker_client.connection.connection import Connection

T = TypeVar("T")


async def pages(
    connection: Connection, method: Any, request: Any, rows: Callable[[Any], Iterable[T]]
) -> AsyncIterator[T]:
    """The rows of one page after the other; the next is asked for when the last row of one is done.

    Raises EventBrokerError. A page that fails on the way is asked for again, so that no row is missed or repeated.
    """
    while True:
        response = await connection.call(method, request)
        for row in rows(response):
            yield row
        if not response.next_page_token:
            return
        request.page_token = response.next_page_token
