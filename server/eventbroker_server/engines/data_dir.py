"""The directory that everything the engines keep is below, for one broker at a time.

    lock                     held by the broker and by its engines, so it is free only when all are gone
    postgres-<major>/        PostgreSQL's data
    valkey/                  Valkey's data
    run/                     the sockets
    postgres.log valkey.log  what the engines say
    bin-cache-*/             engines copied from where their user cannot reach

Directories of the engines belong to their user, and no one else may look into them.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from eventbroker_server.domain.errors import EngineError
from eventbroker_server.engines.lock import lock
from eventbroker_server.engines.user import User, closed_to, engine_user

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

SOCKET_PATH_MAX = 103  # of macOS; Linux takes 107
LOG_MAX = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class DataDir:
    """A locked data directory."""

    path: Path
    user: User
    lock_fd: int

    def owned(self, name: str) -> Path:
        """A directory for the engines alone, made if it is missing. Raises EngineError if it is another user's."""
        path = self.path / name
        path.mkdir(mode=0o700, exist_ok=True)
        owner = path.stat().st_uid
        if owner != self.user.uid:
            if owner != os.geteuid():
                raise EngineError(
                    f"{path} belongs to the user id {owner}, and the engines run as {self.user.name}",
                    f"Run the broker as that user, or `chown -R {self.user.name} {path}`, "
                    "or set EVENTBROKER_DATA_DIR to another directory.",
                )
            os.chown(path, self.user.uid, self.user.gid)
        return path

    @contextmanager
    def socket(self, name: str) -> Iterator[Path]:
        """A path for a socket; in a temporary directory if the data directory's path is too long for one."""
        path = self.path / "run" / name
        if len(os.fsencode(path)) <= SOCKET_PATH_MAX:
            self.owned("run")
            yield path
            return
        directory = Path(tempfile.mkdtemp(prefix="eventbroker-"))
        try:
            os.chown(directory, self.user.uid, self.user.gid)
            if len(os.fsencode(directory / name)) > SOCKET_PATH_MAX or closed_to(self.user, directory):
                raise EngineError(
                    f"Neither {self.path} nor {directory.parent} can hold a socket of the engines",
                    "Set EVENTBROKER_DATA_DIR to a directory with a shorter path.",
                )
            yield directory / name
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def log(self, name: str) -> Path:
        """The file an engine writes its log to. One that has grown large is put aside as *.log.1."""
        path = self.path / f"{name}.log"
        if path.exists() and path.stat().st_size > LOG_MAX:
            path.rename(path.with_suffix(".log.1"))
        try:
            path.touch(mode=0o600)
            path.open("ab").close()
        except PermissionError as exc:
            raise EngineError(
                f"The broker may not write {path}, which another user made",
                "Run it as that user, or set EVENTBROKER_DATA_DIR to another directory.",
            ) from exc
        return path


@asynccontextmanager
async def open_data_dir(path: Path) -> AsyncIterator[DataDir]:
    """Make the directory if it is missing, and lock it. Raises EngineError if it cannot be used."""
    user = engine_user()
    path = await asyncio.to_thread(_make, path, user)
    async with lock(path) as fd:
        yield DataDir(path, user, fd)


def _make(path: Path, user: User) -> Path:
    try:
        path = path.expanduser().resolve()
        places = (*reversed(path.parents), path)
        missing = [place for place in places if not place.exists()]
        if closed := closed_to(user, missing[0].parent if missing else path):
            raise EngineError(
                f"The engines run as {user.name}, who cannot enter {closed} on the way to the data directory {path}",
                "Set EVENTBROKER_DATA_DIR to a directory such as /var/lib/eventbroker.",
            )
        for place in missing:
            place.mkdir(exist_ok=True)
            place.chmod(0o711 if os.geteuid() == 0 else 0o700)
        (path / "lock").touch(mode=0o644)
    except OSError as exc:
        raise EngineError(
            f"The data directory {path} cannot be used: {exc.strerror}",
            "Set EVENTBROKER_DATA_DIR to a directory that can be written.",
        ) from exc
    return path
