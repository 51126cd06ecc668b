"""The statements of the .sql files beside this one, by name. Each begins with it."""

from __future__ import annotations

import re
from importlib import resources

# The columns of an event, in the order of the fields of domain.event.Event, and then those of StoredEvent.
_TOLD = (
    "tenant_id, event_id, event_type, event_version, aggregate_type, aggregate_id, user_id, session_id, request_id, "
    "correlation_id, timestamp, form, content_type, content, metadata"
)
_EVENT = f"{_TOLD}, position, aggregate_version, recorded_at"


def _load() -> dict[str, str]:
    folder = resources.files("eventbroker_server.postgres")
    text = "\n".join(file.read_text() for file in folder.iterdir() if file.name.endswith(".sql"))
    parts = re.split(r"^-- name: (\w+)$", text, flags=re.MULTILINE)[1:]
    named = {name: body.strip() for name, body in zip(parts[::2], parts[1::2], strict=True)}
    if 2 * len(named) != len(parts):
        raise ValueError("two statements have the same name")
    shared = {"told": _TOLD, "event": _EVENT} | {
        name: named.pop(name) for name in ("wanted_event", "unwanted_retry", "wanted_dead_letter", "link")
    }
    return {name: re.sub(r"\{(\w+)\}", lambda part: shared[part[1]], body) for name, body in named.items()}


QUERIES = _load()
