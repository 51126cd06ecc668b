"""Dataclasses as plain values of JSON, and back, by their annotations.

Beside what JSON has: nested dataclasses, datetimes, dates, UUIDs, Decimals, enums, tuples, sets. On the way back fields
that the class does not know are left out, so that a newer publisher may add some.
"""

from __future__ import annotations

import enum
import types
from dataclasses import MISSING, fields, is_dataclass
from datetime import date, datetime
from decimal import Decimal
from functools import cache
from typing import Any, Union, get_args, get_origin, get_type_hints
from uuid import UUID

_SEQUENCES: dict[Any, Any] = {list: list, tuple: tuple, set: set, frozenset: frozenset}


def plain(value: Any) -> Any:
    """What json.dumps asks for when it meets a value that it does not know. Raises TypeError."""
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: getattr(value, each.name) for each in fields(value)}
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    if isinstance(value, (UUID, Decimal)):
        return str(value)
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    raise TypeError(f"{type(value).__qualname__} has no place in JSON")


def shaped(value: Any, wanted: Any) -> Any:
    """The value as an instance of what is wanted. Raises TypeError or ValueError if it does not fit."""
    origin, arguments = get_origin(wanted), get_args(wanted)
    if wanted is Any or isinstance(value, wanted if isinstance(wanted, type) and origin is None else ()):
        return value
    if is_dataclass(wanted) and isinstance(wanted, type):
        return _instance(value, wanted)
    if origin in (Union, types.UnionType):
        return _either(value, arguments)
    if origin in _SEQUENCES and isinstance(value, list):
        if origin is tuple and arguments[-1:] != (Ellipsis,):
            return tuple(shaped(each, kind) for each, kind in zip(value, arguments, strict=True))
        return _SEQUENCES[origin](shaped(each, arguments[0]) for each in value)
    if origin is dict and isinstance(value, dict):
        return {shaped(key, arguments[0]): shaped(each, arguments[1]) for key, each in value.items()}
    if wanted in (datetime, date) and isinstance(value, str):
        return wanted.fromisoformat(value)
    if wanted in (UUID, Decimal) or (isinstance(wanted, type) and issubclass(wanted, enum.Enum)):
        return wanted(value)
    if wanted is float and isinstance(value, int):
        return float(value)
    if wanted in _SEQUENCES and isinstance(value, list):
        return wanted(value)
    if isinstance(wanted, type) or origin is not None:
        raise TypeError(f"{type(value).__name__} where {wanted} is wanted")
    return value  # a Literal, a TypeVar or the like: taken as it is


def _instance(value: Any, wanted: type) -> Any:
    if not isinstance(value, dict):
        raise TypeError(f"{type(value).__name__} where {wanted.__qualname__} is wanted")
    given = {}
    for name, kind, required in _fields(wanted):
        if name in value:
            given[name] = shaped(value[name], kind)
        elif required:
            raise TypeError(f"{wanted.__qualname__} lacks {name}")
    return wanted(**given)


def _either(value: Any, kinds: tuple[Any, ...]) -> Any:
    for kind in kinds:
        try:
            return shaped(value, kind)
        except (TypeError, ValueError, ArithmeticError):
            continue
    raise TypeError(f"{type(value).__name__} where one of {kinds} is wanted")


@cache
def _fields(wanted: type) -> list[tuple[str, Any, bool]]:
    hints = get_type_hints(wanted)
    return [
        (each.name, hints[each.name], each.default is MISSING and each.default_factory is MISSING)
        for each in fields(wanted)
        if each.init
    ]
