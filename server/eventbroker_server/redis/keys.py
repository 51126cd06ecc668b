"""The names of all keys. Each carries its shard as hash tag, so that a shard is one slot of a cluster."""

from __future__ import annotations

from typing import NamedTuple

# These own deliveries that no consumer has; no consumer's name has such a character.
NOBODY = "~"  # handed back, for any consumer
FAILING = "!"  # failed, which is not recorded yet


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

    @property
    def ephemeral(self) -> str:
        return self._key("ephemeral")

    @property
    def tail(self) -> str:
        return self._key("tail")

    @property
    def added(self) -> str:
        return self._key("added")

    @property
    def before(self) -> str:
        return self._key("before")

    def events(self, event_type: str) -> str:
        return self._key("events", event_type)

    def state(self, group: str) -> str:
        return self._key("group", group)

    def extended(self, group: str) -> str:
        return self._key("extended", group)

    def backfill(self, group: str, generation: int) -> str:
        return self._key("backfill", group, str(generation))

    def retry(self, group: str, generation: int) -> str:
        return self._key("retry", group, str(generation))

    def queued(self, group: str) -> str:
        return self._key("queued", group)

    def adrift(self, group: str) -> str:
        return self._key("adrift", group)

    def failing(self, group: str) -> str:
        return self._key("failing", group)

    def done(self, group: str) -> str:
        return self._key("done", group)

    def lines(self, group: str) -> str:
        """What the names of the keys begin with that only an ordered group has."""
        return self._key("lines", group)

    def released(self, group: str) -> str:
        return self.lines(group) + ":released"

    def all_lines(self, group: str) -> list[str]:
        """The keys of lines.lua."""
        return [
            f"{self.lines(group)}:{name}"
            for name in ("turn", "behind", "slots", "queue", "lines", "fed", "released", "later", "held")
        ]

    def process(self, process: str) -> str:
        return self._key("process", process)
