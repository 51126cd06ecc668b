"""Where the broker is, and how to be sure that it is the broker: targets, TLS, tokens, and the options of a channel."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

VARIABLE = "EVENTBROKER_URL"

OPTIONS: list[tuple[str, int]] = [
    # All three are needed to notice a frozen peer within 15 s; without the last it takes a minute.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.min_reconnect_backoff_ms", 3_000),  # which is also how long a connection may take to open
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
]


@dataclass(frozen=True, slots=True)
class Tls:
    """Files in PEM: the authorities to trust (none: the system's), and the client's own chain and key, if it has
    one."""

    ca: str | Path | None = None
    certificate: str | Path | None = None
    key: str | Path | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        """Raises OSError if a file cannot be read."""
        ca, key, certificate = (_read(path) for path in (self.ca, self.key, self.certificate))
        return grpc.ssl_channel_credentials(ca, key, certificate)


@dataclass(frozen=True, slots=True)
class Address:
    """A target of gRPC, such as "broker:50051" or "dns:///broker:50051", and the credentials; None: in clear."""

    target: str
    credentials: grpc.ChannelCredentials | None


def address_of(target: str | None, tls: bool | Tls | None = None, environ: Mapping[str, str] = os.environ) -> Address:
    """The target that is given, or else that of EVENTBROKER_URL.

    "grpcs://host:port" asks for TLS, "grpc://host:port" and "host:port" do not; `tls` decides if it is given. Raises
    ValueError if there is no target, or the target and `tls` contradict each other.
    """
    given = target or environ.get(VARIABLE, "")
    if not given:
        raise ValueError(f"no broker is named: give a target such as '127.0.0.1:50051', or set {VARIABLE}")
    scheme, split, rest = given.partition("://")
    if not split or scheme not in ("grpc", "grpcs"):
        scheme, rest = "", given
    rest = rest.rstrip("/")
    if (scheme == "grpc" and tls) or (scheme == "grpcs" and tls is False):
        raise ValueError(f"the target {given!r} and tls={tls!r} contradict each other")
    if not tls and scheme != "grpcs":
        return Address(rest, None)
    return Address(rest, (tls if isinstance(tls, Tls) else Tls()).credentials())


def metadata_of(token: str | Callable[[], str] | None) -> tuple[tuple[str, str], ...]:
    """What each call carries. A token that is a function is asked for each call, so that it can be renewed."""
    if token is None:
        return ()
    return (("authorization", f"Bearer {token if isinstance(token, str) else token()}"),)


def _read(path: str | Path | None) -> bytes | None:
    return None if path is None else Path(path).read_bytes()
