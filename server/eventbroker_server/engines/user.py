"""Whom the engines run as, and what that user can reach.

An ordinary user's engines run as that user; root's run as nobody. What
nobody can reach is judged by mode bits alone.
"""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eventbroker_server.domain.errors import EngineError

if TYPE_CHECKING:
    from pathlib import Path

ENTER = 0o1  # the bit that lets one pass through a directory, or run a file


@dataclass(frozen=True, slots=True)
class User:
    name: str
    uid: int
    gid: int


def engine_user() -> User:
    """The user for the engines. Raises EngineError if there is none that PostgreSQL would accept."""
    uid = os.geteuid()
    try:
        entry = pwd.getpwnam("nobody") if uid == 0 else pwd.getpwuid(uid)
    except KeyError:
        who = "nobody" if uid == 0 else f"with the id {uid}"
        raise EngineError(
            f"There is no user {who} in /etc/passwd, and PostgreSQL does not run without",
            "Run the broker as a user that exists, or set EVENTBROKER_POSTGRES_URL and EVENTBROKER_REDIS_URL.",
        ) from None
    return User(entry.pw_name, entry.pw_uid, entry.pw_gid)


def closed_to(user: User, path: Path) -> Path | None:
    """The first of the directories on the way to path, or path itself, that the user cannot pass through or run."""
    target = path.resolve()
    for place in (*reversed(path.parents), *reversed(target.parents), target):
        if not _may_enter(user, place):
            return place
    return None


def _may_enter(user: User, place: Path) -> bool:
    if user.uid == os.geteuid():
        return os.access(place, os.X_OK)
    status = place.stat()
    shift = 6 if status.st_uid == user.uid else 3 if status.st_gid == user.gid else 0
    return bool(status.st_mode >> shift & ENTER)
