"""Which event types a group wants."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TypeFilter:
    """A set of patterns; an event type matches if one of them does.

    A pattern is a type ("user.created"), a wildcard for everything below a level ("user.*" matches "user.created" and
    "user.mail.changed", not "user"), or "*". Two filters are equal when their patterns are, in any order.
    """

    patterns: frozenset[str]

    @classmethod
    def of(cls, *patterns: str) -> TypeFilter:
        return cls(frozenset(patterns or ("*",)))

    def matches(self, event_type: str) -> bool:
        if "*" in self.patterns or event_type in self.patterns:
            return True
        end = event_type.rfind(".")
        while end > 0:
            if event_type[:end] + ".*" in self.patterns:
                return True
            end = event_type.rfind(".", 0, end)
        return False

    def exact(self) -> list[str]:
        """The patterns that are one type each."""
        return sorted(pattern for pattern in self.patterns if not pattern.endswith("*"))

    def prefixes(self) -> list[str]:
        """What a type may begin with to match a wildcard: "user." for "user.*", "" for "*"."""
        return sorted(pattern[:-1] for pattern in self.patterns if pattern.endswith("*"))

    def __str__(self) -> str:
        return ",".join(sorted(self.patterns))
