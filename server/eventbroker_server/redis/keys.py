"""The names of all keys. Each carries its shard as hash tag, so that a shard is one slot of a cluster."""

from __future__ import annotations

from typing import NamedTuple

NOBODY = "~"  # owns deliveries that were handed back; no consumer's name has this character


class Keys(NamedTuple):
    """The keys of one shard."""

    prefix: str
    shard: int

    def _key(self, *parts: str) -> str:
        return ":".join((self.prefix, f"{{{self.shard}}}", *parts))

    @property
    def head(self) -> str:
        return self._key("head")

    @property
    def types(self) -> str:
        return self._key("types")

    @property
    def signals(self) -> str:
        return self._key("signals")

    def events(self, event_type: str) -> str:
        return self._key("events", event_type)

    def state(self, group: str) -> str:
        return self._key("group", group)

    def attempts(self, group: str) -> str:
        return self._key("attempts", group)

    def extended(self, group: str) -> str:
        return self._key("extended", group)

    def backfill(self, group: str, generation: int) -> str:
        return self._key("backfill", group, str(generation))

    def process(self, process: str) -> str:
        return self._key("process", process)
