"""The pages: /metrics for Prometheus, /livez and /readyz for an orchestrator."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

if TYPE_CHECKING:
    from prometheus_client import Metric
    from starlette.requests import Request

    from eventbroker_server.http.probes import Probes


def pages(collector: Collector, probes: Probes) -> Starlette:
    async def metrics(request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        registry = CollectorRegistry()
        registry.register(_Collected(list(collector.collect())))
        # Many types and groups make a long page: it is written apart, while events go on.
        page = await asyncio.to_thread(encode, registry)
        return Response(page, headers={"content-type": content_type})

    async def livez(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_: Request) -> Response:
        ready, parts = await probes.ready()
        return JSONResponse(parts, 200 if ready else 503)

    return Starlette(routes=[Route("/metrics", metrics), Route("/livez", livez), Route("/readyz", readyz)])


class _Collected(Collector):
    """What was read at one moment."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        return self._families
