"""What things may be called.

Names and ids go into keys of Redis, index entries of PostgreSQL and log lines; these rules keep all three safe. The
checks are remembered, since a broker sees the same few tenants, types and sources over and over.
"""

from __future__ import annotations

import re
from functools import lru_cache

MAX_NAME = 128
MAX_ID = 256
MAX_LEVELS = 8

NAME_RULE = f"must be 1 to {MAX_NAME} characters of A-Z a-z 0-9 . _ -"
TYPE_RULE = f"must be 1 to {MAX_LEVELS} levels between dots, of a-z 0-9 _ -, at most {MAX_NAME} characters"
PATTERN_RULE = 'must be an event type, a wildcard such as "user.*", or "*"'
TYPE_URL_RULE = 'must name a type, such as "type.googleapis.com/eventbroker.events.v1.UserCreated"'
ID_RULE = f"must be 1 to {MAX_ID} characters without control characters"

_NAME = re.compile(rf"[A-Za-z0-9._-]{{1,{MAX_NAME}}}")
_TYPE = re.compile(rf"(?=.{{1,{MAX_NAME}}}\Z)[a-z0-9_-]+(?:\.[a-z0-9_-]+){{0,{MAX_LEVELS - 1}}}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def is_name(text: str) -> bool:
    return len(text) <= MAX_NAME and _is_name(text)


@lru_cache(8192)
def _is_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None


@lru_cache(8192)
def _are_names(texts: tuple[str, ...]) -> bool:
    return all(map(_is_name, texts))


def are_names(texts: tuple[str, ...]) -> bool:
    """Whether each of them is a name: the quick check, for many at once."""
    return sum(map(len, texts)) <= MAX_NAME * len(texts) and _are_names(texts)


def is_event_type(text: str) -> bool:
    return len(text) <= MAX_NAME and _is_event_type(text)


@lru_cache(8192)
def _is_event_type(text: str) -> bool:
    return _TYPE.fullmatch(text) is not None


def is_type_pattern(text: str) -> bool:
    return text == "*" or is_event_type(text.removesuffix(".*"))


def is_id(text: str) -> bool:
    return 0 < len(text) <= MAX_ID and _CONTROL.search(text) is None


def are_ids(texts: tuple[str, ...]) -> bool:
    """Whether each of them is an id or empty: the quick check, for many at once."""
    joined = "".join(texts)
    if len(joined) > MAX_ID and max(map(len, texts)) > MAX_ID:
        return False
    return joined.isprintable() or _CONTROL.search(joined) is None


def has_control_characters(text: str) -> bool:
    return _CONTROL.search(text) is not None


def is_type_url(text: str) -> bool:
    return "/" in text and not has_control_characters(text)
