"""Is the broker on this machine serving? `python -m eventbroker_server.healthcheck` exits 0 if it is, 1 if it is not.

It asks grpc.health.v1 at the host and port of the settings, over loopback where the broker listens on all addresses,
and waits for at most three seconds. For a container's HEALTHCHECK and for scripts.
"""

from __future__ import annotations

import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from eventbroker_server.settings import Settings

TIMEOUT = 3.0
ANY_ADDRESS = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - looked up, not bound


def target_of(settings: Settings) -> str:
    """The address at which a client on this machine reaches the broker."""
    host = ANY_ADDRESS.get(settings.host, settings.host)
    return f"[{host}]:{settings.port}" if ":" in host else f"{host}:{settings.port}"


def main() -> int:
    target = target_of(Settings.load())
    with grpc.insecure_channel(target, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT)
        except grpc.RpcError:
            return 1
    return 0 if answer.status == health_pb2.HealthCheckResponse.SERVING else 1


if __name__ == "__main__":
    sys.exit(main())
