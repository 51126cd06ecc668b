"""Contexts: brokers by names of one's own, kept in a file of the user."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from eventbroker_cli.exits import Code, Failed


@dataclass(frozen=True, slots=True)
class Context:
    """How to reach a broker, and whose events are meant there. What is empty is not used."""

    name: str
    url: str = ""
    tenant: str = ""
    token_file: str = ""  # the token itself is never kept here
    ca: str = ""
    cert: str = ""
    key: str = ""


@dataclass(frozen=True, slots=True)
class Contexts:
    """All of them, and the name of the one in use (empty: none)."""

    all: dict[str, Context]
    current: str = ""

    @classmethod
    def load(cls) -> Contexts:
        """Without a file there are none. Raises Failed."""
        path = file()
        try:
            read = json.loads(path.read_text())
            known = {field.name for field in fields(Context)} - {"name"}
            told = {
                name: {key: str(given[key]) for key in known & set(given)} for name, given in read["contexts"].items()
            }
            return cls({name: Context(name, **given) for name, given in told.items()}, str(read.get("current", "")))
        except FileNotFoundError:
            return cls({})
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise Failed(f"{path} cannot be read: {error!r}") from None

    def named(self, name: str) -> Context:
        """Raises Failed."""
        if name not in self.all:
            known = ", ".join(sorted(self.all)) or "none"
            raise Failed(f"there is no context {name}; there are: {known}", Code.NOT_FOUND)
        return self.all[name]

    def in_use(self) -> Context | None:
        return self.named(self.current) if self.current else None

    def using(self, name: str) -> Contexts:
        return replace(self, current=self.named(name).name if name else "")

    def put(self, context: Context) -> Contexts:
        return replace(self, all=self.all | {context.name: context})

    def without(self, name: str) -> Contexts:
        self.named(name)
        left = {each: context for each, context in self.all.items() if each != name}
        return Contexts(left, "" if self.current == name else self.current)

    def save(self) -> None:
        """Replaces the file at once; it is for its owner only. Raises Failed."""
        path = file()
        told = {name: {k: v for k, v in asdict(each).items() if v and k != "name"} for name, each in self.all.items()}
        draft = path.with_suffix(f".{os.getpid()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as written:
                json.dump({"current": self.current, "contexts": told}, written, indent=2)
            draft.replace(path)
        except OSError as error:
            raise Failed(f"{path} cannot be written: {error}", Code.PARTLY) from None


def file() -> Path:
    return Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "eventbroker" / "contexts.json"
