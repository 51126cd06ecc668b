"""Which broker a command means: told by its options, by the environment, or by a context (contexts.py).

The first of these names it: --url, --context, EVENTBROKER_URL, EVENTBROKER_CONTEXT, the context in use, the broker of
this machine. A context is taken as a whole: if the URL comes from elsewhere, the context's credentials do not go there.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from eventbroker_client import Tls
from eventbroker_client.connection.address import address_of

from eventbroker_cli.contexts import Context, Contexts
from eventbroker_cli.exits import Failed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from eventbroker_client.connection.address import Address

LOCAL = "127.0.0.1:50051"


@dataclass(frozen=True, slots=True)
class Target:
    """A broker, whose events are meant, and how long to wait for an answer (seconds)."""

    url: str
    tenant: str
    timeout: float
    context: Context | None = None

    def tls(self) -> Tls | None:
        """What the context says of it; None: the URL tells."""
        context = self.context
        return Tls(context.ca, context.cert, context.key) if context and (context.ca or context.cert) else None

    def address(self) -> Address:
        """Raises Failed."""
        try:
            return address_of(self.url, self.tls())
        except (OSError, ValueError) as error:
            raise Failed(f"the broker cannot be addressed: {error}") from None

    def token(self) -> str | None:
        """The credential of the caller. Raises Failed."""
        if self.context is None or not self.context.token_file:
            return os.environ.get("EVENTBROKER_TOKEN") or None
        try:
            return Path(self.context.token_file).expanduser().read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise Failed(f"the token of context {self.context.name} cannot be read: {error}") from None


def target_of(
    url: str | None,
    context: str | None,
    tenant: str | None,
    timeout: float,
    environ: Mapping[str, str] = os.environ,
) -> Target:
    """None stands for what was not said. Raises Failed: there is no such context."""
    named = _context(url, context, environ)
    found = url or (named.url if named else "") or environ.get("EVENTBROKER_URL") or LOCAL
    if tenant is None:
        said = named.tenant if named and context else ""  # by --context, which goes before the environment
        tenant = said or environ.get("EVENTBROKER_TENANT") or (named.tenant if named else "")
    return Target(found, tenant, timeout, named)


def _context(url: str | None, context: str | None, environ: Mapping[str, str]) -> Context | None:
    if context:
        return Contexts.load().named(context)
    if url or environ.get("EVENTBROKER_URL"):
        return None
    if name := environ.get("EVENTBROKER_CONTEXT"):
        return Contexts.load().named(name)
    return Contexts.load().in_use()
