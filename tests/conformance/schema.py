"""As much of JSON Schema as schema.json uses. A keyword that is not known here raises KeyError."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TYPES: dict[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, (int, float)) and not isinstance(value, bool),
    "null": lambda value: value is None,
}
SIMPLE: dict[str, Callable[[Any, Any], bool]] = {  # whether a value is as the keyword asks
    "type": lambda asked, value: any(TYPES[one](value) for one in ([asked] if isinstance(asked, str) else asked)),
    "enum": lambda asked, value: value in asked,
    "pattern": lambda asked, value: re.search(asked, value) is not None,
    "required": lambda asked, value: all(name in value for name in asked),
    "minItems": lambda asked, value: len(value) >= asked,
    "minProperties": lambda asked, value: len(value) >= asked,
    "maxProperties": lambda asked, value: len(value) <= asked,
}
NESTED = {"properties", "additionalProperties", "items", "anyOf", "$ref", "$defs", "$comment"}


def faults(value: Any, schema: Any, root: dict[str, Any], path: str = "$") -> Iterator[str]:
    """What is wrong with a value, each with its path."""
    if schema is False:
        yield f"{path} is not known"
        return
    if "$ref" in schema:
        yield from faults(value, root["$defs"][schema["$ref"].removeprefix("#/$defs/")], root, path)
        return
    wrong = [word for word in schema if word not in NESTED and not SIMPLE[word](schema[word], value)]
    if wrong:
        yield from (f"{path}: {word} is {schema[word]}" for word in wrong)
        return
    if "anyOf" in schema and all(any(faults(value, one, root, path)) for one in schema["anyOf"]):
        yield f"{path} is none of {schema['anyOf']}"
    if "items" in schema:
        for number, one in enumerate(value):
            yield from faults(one, schema["items"], root, f"{path}[{number}]")
    known, others = schema.get("properties", {}), schema.get("additionalProperties")
    for name, one in value.items() if isinstance(value, dict) else ():
        if name in known:
            yield from faults(one, known[name], root, f"{path}.{name}")
        elif others is not None:
            yield from faults(one, others, root, f"{path}.{name}")
