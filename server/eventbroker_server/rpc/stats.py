"""StatsService."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eventbroker.v1 import stats_service_pb2 as pb
from eventbroker.v1.stats_service_pb2_grpc import StatsServiceServicer

from eventbroker_server.broker.lag import lags
from eventbroker_server.rpc.auth import PRINCIPAL
from eventbroker_server.rpc.rules import check_name, raise_if_any

if TYPE_CHECKING:
    import grpc

    from eventbroker_server.broker.figures import Figures
    from eventbroker_server.domain.errors import Violation
    from eventbroker_server.ports import GroupStore


class StatsServicer(StatsServiceServicer):
    def __init__(self, figures: Figures, groups: GroupStore, shards: int) -> None:
        self._figures = figures
        self._groups = groups
        self._shards = shards

    async def GetStats(  # noqa: N802 - the name of the RPC
        self, request: pb.GetStatsRequest, context: grpc.aio.ServicerContext[pb.GetStatsRequest, pb.GetStatsResponse]
    ) -> pb.GetStatsResponse:
        violations: list[Violation] = []
        check_name(request.tenant_id, "tenant_id", violations, optional=True)
        raise_if_any(violations)
        tenant = PRINCIPAL.get().tenant_for(request.tenant_id)
        response = pb.GetStatsResponse()
        response.since.FromMicroseconds(int(self._figures.since * 1e6))
        for lag in await lags(self._groups, tenant, self._shards):
            group = response.groups.add(name=lag.group.name, tenant_id=lag.group.tenant, lag=lag.positions)
            if lag.oldest_age is not None:
                group.oldest_unsettled_age.FromTimedelta(lag.oldest_age)
        if not tenant:  # what is counted is of all tenants
            self._count(response)
        return response

    def _count(self, response: pb.GetStatsResponse) -> None:
        rows: dict[str, pb.EventTypeStats] = {}
        for event_type, figures in sorted(self._figures.types.items()):
            row = rows[event_type] = response.event_types.add(event_type=event_type, published=figures.published)
            average, p99 = figures.latency.average, figures.latency.percentile(0.99)
            if average is not None and p99 is not None:
                row.average_latency.FromMicroseconds(round(average * 1e6))
                row.p99_latency.FromMicroseconds(round(p99 * 1e6))
        for (event_type, _), deliveries in self._figures.deliveries.items():
            row = rows[event_type]
            row.delivered += deliveries.delivered
            row.acked += deliveries.acked
            row.failed += deliveries.failed
        response.total_event_types = len(rows)
