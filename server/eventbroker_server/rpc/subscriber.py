"""SubscriberService."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eventbroker.v1 import subscriber_service_pb2 as pb
from eventbroker.v1.subscriber_service_pb2_grpc import SubscriberServiceServicer

from eventbroker_server.broker.subscription import Farewell
from eventbroker_server.rpc.auth import PRINCIPAL
from eventbroker_server.rpc.consume import Conversation, first_of
from eventbroker_server.rpc.pull import pull_of, pulled
from eventbroker_server.rpc.settle import settle
from eventbroker_server.rpc.told import opened, told
from eventbroker_server.rpc.wish import flow_of, wish_of

if TYPE_CHECKING:
    import grpc

    from eventbroker_server.broker.consumer import FlowControl
    from eventbroker_server.broker.pulling import Pulling
    from eventbroker_server.broker.settle import Settling
    from eventbroker_server.broker.subscriptions import Subscriptions, Wish
    from eventbroker_server.domain.errors import Violation


class SubscriberServicer(SubscriberServiceServicer):
    """`defaults` stand for the zeros of a request's flow control."""

    def __init__(
        self, subscriptions: Subscriptions, pulling: Pulling, settling: Settling, defaults: FlowControl
    ) -> None:
        self._subscriptions = subscriptions
        self._pulling = pulling
        self._settling = settling
        self._defaults = defaults

    async def Subscribe(  # type: ignore[override] # noqa: N802 - writes to the context, which cleans up at once
        self,
        request: pb.SubscribeRequest,
        context: grpc.aio.ServicerContext[pb.SubscribeRequest, pb.SubscribeResponse],
    ) -> None:
        async with self._subscriptions.open(self._wish(request)) as subscription:
            await context.write(opened(subscription))
            while True:
                said = await subscription.next()
                await context.write(told(said))  # type: ignore[arg-type] # the door takes bytes as they are
                if isinstance(said, Farewell):
                    return

    async def Consume(  # type: ignore[override] # noqa: N802 - as Subscribe
        self,
        request_iterator: object,
        context: grpc.aio.ServicerContext[pb.ConsumeRequest, pb.ConsumeResponse],
    ) -> None:
        wish = await first_of(context, self._wish)
        async with self._subscriptions.open(wish) as subscription:
            await Conversation(subscription, self._settling, PRINCIPAL.get(), context).run()

    async def Pull(  # type: ignore[override] # noqa: N802 - answers bytes, which the door takes as they are
        self, request: pb.PullRequest, context: grpc.aio.ServicerContext[pb.PullRequest, pb.PullResponse]
    ) -> bytes:
        wish, most, wait = pull_of(request, PRINCIPAL.get(), self._defaults)
        return pulled(await self._pulling.pull(wish, most, wait))

    async def Ack(  # noqa: N802 - the name of the RPC
        self, request: pb.AckRequest, context: grpc.aio.ServicerContext[pb.AckRequest, pb.AckResponse]
    ) -> pb.AckResponse:
        return await settle(self._settling, PRINCIPAL.get(), request, pb.AckResponse())

    async def Nack(  # noqa: N802 - the name of the RPC
        self, request: pb.NackRequest, context: grpc.aio.ServicerContext[pb.NackRequest, pb.NackResponse]
    ) -> pb.NackResponse:
        return await settle(self._settling, PRINCIPAL.get(), request, pb.NackResponse())

    async def ExtendDeadline(  # noqa: N802 - the name of the RPC
        self,
        request: pb.ExtendDeadlineRequest,
        context: grpc.aio.ServicerContext[pb.ExtendDeadlineRequest, pb.ExtendDeadlineResponse],
    ) -> pb.ExtendDeadlineResponse:
        return await settle(self._settling, PRINCIPAL.get(), request, pb.ExtendDeadlineResponse())

    def _wish(self, request: pb.SubscribeRequest) -> Wish:
        violations: list[Violation] = []
        flow = flow_of(request.flow_control, self._defaults, violations)
        return wish_of(request, PRINCIPAL.get(), flow, violations)
