"""What all parts of RedisStreams share: the scripts, and how an entry is named."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from eventbroker_server.domain.ack_id import BACKFILL, RETRY
from eventbroker_server.domain.group import process_of
from eventbroker_server.ports import GroupState, Stale
from eventbroker_server.redis.connection import translated
from eventbroker_server.redis.keys import Keys

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from redis.asyncio import Redis

    from eventbroker_server.ports import Holding

_STALE = -2
_LINES = "lines.lua"


@cache
def _scripts() -> dict[str, bytes]:
    folder = resources.files("eventbroker_server.redis")
    texts = {file.name: file.read_bytes() for file in folder.iterdir() if file.name.endswith(".lua")}
    lines = texts.pop(_LINES)
    with_lines = f"-- with {_LINES}".encode()
    return {
        name.removesuffix(".lua"): lines + text if text.startswith(with_lines) else text for name, text in texts.items()
    }


class Scripted:
    """Runs the scripts of this directory. `process` names this broker process in consumers and signals; it is new at
    every start."""

    def __init__(self, client: Redis, prefix: str, process: str) -> None:
        self.process = process
        self._redis: Any = client  # its types do not tell that replies are bytes
        self._redis.set_response_callback("XREADGROUP", _as_it_is)  # rather than each entry made into a dict
        self._returned: set[str] = set()  # states of groups to which something was handed back
        self._prefix = prefix
        self._scripts: dict[str, Any] = {name: client.register_script(text) for name, text in _scripts().items()}

    def _keys(self, shard: int) -> Keys:
        return Keys(self._prefix, shard)

    async def _run(self, script: str, keys: Sequence[str], *args: object) -> Any:
        async with translated():
            return await self._scripts[script](keys=keys, args=args)

    def _lanes(self, keys: Keys, group: str, generation: int, types: Iterable[str]) -> list[str]:
        """The streams of a group as the scripts want them: its own two first, then its types'."""
        return [keys.backfill(group, generation), keys.retry(group, generation), *map(keys.events, types)]

    def _to_tell(self, consumer: str) -> str:
        process = process_of(consumer)
        return "" if process == self.process else process


class Index(dict[str, int]):
    """Numbers the streams that a script is to work on: the group's own two, then as they come."""

    def __init__(self) -> None:
        super().__init__({BACKFILL: 0, RETRY: 1})

    def __missing__(self, stream: str) -> int:
        self[stream] = number = len(self)
        return number

    @property
    def types(self) -> list[str]:
        """Those that are not the group's own."""
        return list(self)[2:]

    def held(self, holdings: Sequence[Holding]) -> list[object]:
        """Deliveries as arguments: stream, id of the entry, consumer, number, position."""
        items: list[object] = []
        for position, stream, consumer, number, retry in holdings:
            items += (self[stream], entry_id(position, retry), consumer, number, position)
        return items

    def left(self, failed: Holding | None) -> tuple[int, str, int]:
        """A delivery that failed, which may still be set aside, as arguments: stream (-1 for none), id, number."""
        return (self[failed.stream], entry_id(failed.position, failed.retry), failed.number) if failed else (-1, "", 0)


def entry_id(position: int, retry: int) -> str:
    return f"{retry}-{position}" if retry else f"{position}-0"


def place(stream: str, entry_id: bytes) -> tuple[int, int]:
    """The position of an entry, and its number in the retry stream."""
    major, _, minor = entry_id.partition(b"-")
    return (int(minor), int(major)) if stream == RETRY else (int(major), 0)


def fresh(reply: Any) -> Any:
    if reply == _STALE:
        raise Stale
    return reply


def state_of(reply: Any) -> GroupState:
    if isinstance(reply, int):
        raise Stale
    return GroupState(*reply)


def _as_it_is(response: Any, **_: Any) -> Any:
    return response
