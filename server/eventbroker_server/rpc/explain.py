"""An explanation as a message, with a sentence for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eventbroker.v1 import group_service_pb2 as pb

from eventbroker_server.broker.explain import DeliveryState
from eventbroker_server.rpc.convert import set_time

if TYPE_CHECKING:
    from eventbroker_server.broker.explain import Explanation

_SENTENCES = {
    DeliveryState.FILTERED: "The group does not want it: it gets {said.wanted} only.",
    DeliveryState.NOT_RELAYED: "It is stored, and not relayed to Redis yet.",
    DeliveryState.HISTORY: "It is in the history that the group has yet to read.",
    DeliveryState.WAITING: "It waits for a consumer with credit.",
    DeliveryState.OUT: "Consumer {said.consumer_id} has it until {until}, unless it asks for more time.",
    DeliveryState.FAILING: "An attempt failed just now, which is being recorded.",
    DeliveryState.RETRY: "Attempt {said.failed} failed: {said.error}. The next is due at {until}.",
    DeliveryState.DEAD: "It is a dead letter since {until}, after attempt {said.failed}: {said.error}.",
    DeliveryState.BEHIND: "It waits for event {said.behind} of its aggregate, which goes before it.",
    DeliveryState.SETTLED: "It is settled, or lies before the place where the group began or was moved to.",
}


def explained(said: Explanation) -> pb.ExplainDeliveryResponse:
    until = said.until.isoformat(timespec="milliseconds") if said.until else ""
    sentence = _SENTENCES[said.state].format(said=said, until=until)
    if said.state is DeliveryState.RETRY and not said.failed:
        sentence = f"It was a dead letter and is redriven: it is due at {until}."
    if said.state is DeliveryState.DEAD and not said.failed:
        sentence = f"It is a dead letter since {until}, and was never delivered: it is {said.error}."
    if not said.attended:
        sentence += " No consumer is connected."
    if said.paused and said.state not in (DeliveryState.FILTERED, DeliveryState.SETTLED, DeliveryState.DEAD):
        sentence += " The group is paused."
    response = pb.ExplainDeliveryResponse(
        state=said.state.value,  # type: ignore[arg-type] # the numbers are the same
        explanation=sentence,
        shard=said.shard,
        position=said.position,
        settled_position=said.checkpoint,
        paused=said.paused,
        failed_attempts=said.failed,
        last_error=said.error,
        consumer_id=said.consumer_id,
        behind_event_id=said.behind,
    )
    if said.until is not None:
        set_time(response.until, said.until)
    return response
