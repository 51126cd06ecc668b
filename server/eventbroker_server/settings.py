"""What can be set, and where it comes from.

Every setting has a default that works on one machine. A TOML file (named by EVENTBROKER_CONFIG) goes before the
defaults, and the environment before the file: the field `postgres_url` is the variable EVENTBROKER_POSTGRES_URL. A
variable that ends in _FILE names a file that holds the value, which is how secrets should come. An unknown name or a
value that does not fit is an error that names it.
"""

from __future__ import annotations

import math
import os
import re
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from eventbroker_server.domain.errors import BadSetting

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX = "EVENTBROKER_"
MEBI = 1024 * 1024

# Variables with our prefix that are not ours: of clients, and those that Kubernetes makes for a service of our name.
_OTHERS = re.compile(r"CONFIG|TARGET|URL|CONTEXT|TENANT|TOKEN|SERVICE_(HOST|PORT.*)|PORT_\d+_TCP.*")


def default_data_dir() -> str:
    """Where the embedded engines keep their data: for root a system directory, since PostgreSQL will not run as root
    and the user it runs as cannot enter root's home."""
    if os.geteuid() == 0:
        return "/var/lib/eventbroker"
    home = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    return os.path.join(home, "eventbroker")


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings. Durations are in seconds, sizes in bytes."""

    # The two stores. Without a URL an embedded engine is started in data_dir.
    postgres_url: str = ""
    redis_url: str = ""
    data_dir: str = ""
    postgres_bin: str = ""  # a directory with initdb and postgres; empty: the wheel's, else Debian's, else PATH
    valkey_bin: str = ""  # valkey-server or redis-server; empty: the wheel's, else PATH
    postgres_pool_size: int = 8
    postgres_statement_cache: int = 100  # 0 behind a pgbouncer older than 1.21
    postgres_timeout: float = 5.0  # one statement, and one attempt to connect
    redis_prefix: str = "eb"  # first part of every key
    redis_timeout: float = 5.0  # one command
    shards: int = 0  # of a new database, whose number is fixed from then on; 0: what it has, or 1

    # The door.
    host: str = "127.0.0.1"
    port: int = 50051  # 0: any free one
    max_streams: int = 2_000  # open Subscribe and Consume streams, and consumers that pull
    max_calls: int = 1_000  # unary calls under way
    drain_timeout: float = 25.0  # from SIGTERM until what is still open is cut off

    # Metrics and probes, over HTTP.
    http_host: str = "127.0.0.1"  # anybody who reaches it may read them
    http_port: int = 9464  # 0: any free one; -1: none

    # Events.
    max_event_bytes: int = 1 * MEBI
    max_publish_bytes: int = 4 * MEBI
    max_publish_events: int = 1_000
    max_snapshot_bytes: int = 1 * MEBI  # of data

    linger: float = 0.006  # how long a small flush, relay or read waits for company under load

    # Append: one flush holds at most this; what waits beyond the backlog is refused.
    flush_events: int = 300  # not all that waits, so that PostgreSQL works while the next requests are read
    append_backlog_events: int = 50_000
    append_backlog_bytes: int = 64 * MEBI
    aggregate_cache: int = 100_000  # aggregates whose version is remembered

    # Relay and delivery.
    tail_age: float = 24 * 3600.0  # how long Redis keeps an event, whoever has not read it
    tail_bytes: int = 256 * MEBI  # of events that Redis keeps at most, in each shard
    sweep_interval: float = 2.0  # how often to look for what a crash left behind
    checkpoint_interval: float = 2.0  # how often a group's progress is written to PostgreSQL
    process_ttl: float = 10.0  # a broker that is silent for this long counts as dead
    heartbeat_interval: float = 15.0
    stream_max_age: float = 3600.0  # give or take 10 %
    pull_idle: float = 5.0  # how long a consumer that pulls, and holds nothing, stays without a call
    create_groups: bool = True  # whether Subscribe makes a group that does not exist
    ack_deadline: float = 30.0  # of a new group, if it does not say
    dead_letter_purge_interval: float = 3600.0  # how often to look for dead letters that are past their retention
    max_unsettled_events: int = 256
    max_unsettled_bytes: int = 16 * MEBI
    max_batch_events: int = 64

    log_level: str = "INFO"

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read the file that EVENTBROKER_CONFIG names, then the environment. Raises BadSetting."""
        environ = os.environ if environ is None else environ
        known = get_type_hints(cls)
        found: dict[str, Any] = {}
        if path := environ.get(PREFIX + "CONFIG"):
            for name, value in _read_toml(path).items():
                if name not in known:
                    raise BadSetting(name, f"is not a setting (in {path})")
                found[name] = _fit(name, str(value), known[name])
        for variable in environ:
            name = variable.removeprefix(PREFIX)
            if name != variable and name.removesuffix("_FILE").lower() not in known and not _OTHERS.fullmatch(name):
                raise BadSetting(variable, "is not a setting")
        for field in fields(cls):
            variable = PREFIX + field.name.upper()
            if (file := environ.get(variable + "_FILE")) is not None:
                found[field.name] = _fit(field.name, _read_text(variable, file), known[field.name])
            elif (text := environ.get(variable)) is not None:
                found[field.name] = _fit(field.name, text, known[field.name])
        settings = cls(**found)
        settings.check()
        return settings

    def check(self) -> None:
        """Raise BadSetting for the first value out of its bounds."""
        for name in known_numbers(type(self)):
            if not 0 <= getattr(self, name) < math.inf and (name, getattr(self, name)) != ("http_port", -1):
                raise BadSetting(name, "must be a number, and not negative")
        if self.log_level.upper() not in ("DEBUG", "INFO", "WARNING", "ERROR"):
            raise BadSetting("log_level", "must be one of DEBUG, INFO, WARNING, ERROR")
        for name in ("postgres_pool_size", "flush_events", "max_publish_events"):
            if getattr(self, name) < 1:
                raise BadSetting(name, "must be at least 1")
        intervals = [name for name in known_numbers(type(self)) if name.endswith("_interval")]
        for name in (*intervals, "postgres_timeout", "process_ttl"):
            if getattr(self, name) < 0.01:
                raise BadSetting(name, "must be at least 0.01 s")
        if self.redis_timeout <= 1.5:
            raise BadSetting("redis_timeout", "must be above 1.5 s, as a read may wait for 1 s")
        if self.max_snapshot_bytes > 3 * MEBI:
            raise BadSetting("max_snapshot_bytes", "must be at most 3145728, as clients take 4 MiB in one answer")
        if not 1.0 <= self.ack_deadline <= 12 * 3600:
            raise BadSetting("ack_deadline", "must be from 1 s to 12 h")
        for name in ("port", "http_port"):
            if getattr(self, name) > 65_535:
                raise BadSetting(name, "must be at most 65535")


def known_numbers(cls: type[Settings]) -> list[str]:
    return [name for name, hint in get_type_hints(cls).items() if hint in (int, float)]


def _read_toml(path: str) -> dict[str, Any]:
    try:
        return tomllib.loads(Path(path).read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        raise BadSetting("config", f"cannot be read: {exc}") from exc


def _read_text(variable: str, path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise BadSetting(variable + "_FILE", f"cannot be read: {exc}") from exc


_SWITCH = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}


def _fit(name: str, text: str, kind: type) -> Any:
    if kind is bool:
        if text.lower() not in _SWITCH:
            raise BadSetting(name, f"must be true or false, not {text!r}")
        return _SWITCH[text.lower()]
    try:
        return kind(text)
    except ValueError as exc:
        raise BadSetting(name, f"must be {'a whole number' if kind is int else 'a number'}, not {text!r}") from exc
