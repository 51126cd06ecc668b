"""What a handler raises to say what is to become of its event; any other exception is a failed attempt."""

from __future__ import annotations


class Reject(Exception):
    """No attempt can succeed: the event becomes a dead letter now, with this reason."""

    def __init__(self, reason: str) -> None:
        if not reason:
            raise ValueError("a reason is required")
        super().__init__(reason)


class Retry(Exception):
    """The attempt failed: the event comes again after `delay` seconds, up to 24 h, or after the group's back-off."""

    def __init__(self, reason: str = "", *, delay: float | None = None) -> None:
        self.delay = delay
        super().__init__(reason or "the handler asked for another attempt")
