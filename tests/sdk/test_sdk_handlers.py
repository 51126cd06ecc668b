"""The parts of a consumer: which handler, which lane, what is held, and how it is settled."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import pytest
from eventbroker.v1 import subscriber_service_pb2 as pb
from eventbroker.v1.event_pb2 import Event as Message
from eventbroker_client import Delivery, InvalidArgument, Outcome, Reject, Unavailable, UserCreated
from eventbroker_client.consuming.handler import Handler, Handlers, pattern_of
from eventbroker_client.consuming.holdings import REMEMBERED, Holdings
from eventbroker_client.consuming.lanes import Lanes
from eventbroker_client.consuming.settling import ACK, Extend, Nack, Settler, reason_of

from tests.waiting import eventually

if TYPE_CHECKING:
    from eventbroker_client.consuming.settling import Request


async def handle(event: object) -> None: ...


def delivery(event_id: str, ack_id: str = "a1", *, is_replay: bool = False) -> Delivery:
    message = pb.Delivery(event=Message(tenant_id="t", event_id=event_id), ack_id=ack_id, is_replay=is_replay)
    return Delivery(message, Settler(answering()))


def answering(*outcomes: Outcome) -> Any:
    """A transport that answers with these outcomes, or else DONE."""
    left = list(outcomes)

    async def send(request: Request) -> list[pb.SettleResult]:
        return [
            pb.SettleResult(ack_id=ack_id, outcome=int(left.pop(0) if left else Outcome.DONE))  # type: ignore[arg-type]
            for ack_id in request.ack_ids
        ]

    return send


@pytest.mark.parametrize(
    ("event_type", "pattern"),
    [
        ("user.created", "user.created"),
        ("user.gone", "user.*"),
        ("user.mail.sent", "user.mail.*"),
        ("user.mail", "user.*"),
        ("user", "*"),
        ("role.made", "*"),
    ],
)
def test_the_most_specific_handler_is_found(event_type: str, pattern: str) -> None:
    handlers = Handlers()
    for each in ("*", "user.*", "user.mail.*", "user.created"):
        handlers.add(Handler(handle, each))
    found = handlers.find(event_type)
    assert found is not None
    assert found.pattern == pattern
    assert handlers.patterns == ["*"]


def test_without_a_match_there_is_no_handler() -> None:
    handlers = Handlers()
    handlers.add(Handler(handle, "user.*"))
    assert handlers.find("user") is None
    assert handlers.find("users.created") is None


def test_a_class_stands_for_its_type() -> None:
    assert pattern_of(UserCreated) == ("user.created", UserCreated)
    with pytest.raises(TypeError, match="no event type"):
        pattern_of(int)


def test_what_is_no_handler_is_refused_when_it_is_named() -> None:
    async def none() -> None: ...
    async def three(a: object, b: object, c: object) -> None: ...
    def blocking(event: object) -> None: ...

    for function in (none, three, blocking):
        with pytest.raises(TypeError):
            Handlers().add(Handler(function, "*"))  # type: ignore[arg-type]
    handlers = Handlers()
    handlers.add(Handler(handle, "*"))
    with pytest.raises(ValueError, match="has a handler"):
        handlers.add(Handler(handle, "*"))


async def test_jobs_of_a_lane_follow_each_other_and_lanes_share_the_places() -> None:
    running: list[str] = []
    done: list[str] = []
    go: dict[str, asyncio.Event] = {name: asyncio.Event() for name in ("a1", "a2", "b1", "c1")}

    async def run(job: str) -> None:
        running.append(job)
        await go[job].wait()
        running.remove(job)
        done.append(job)

    lanes: Lanes[str] = Lanes(2, run)
    for job in go:
        lanes.put(job[0], job)
    await eventually(lambda: running == ["a1", "b1"])
    go["a1"].set()
    await eventually(lambda: running == ["b1", "c1"])  # who has waited longest goes first
    go["b1"].set()
    await eventually(lambda: running == ["c1", "a2"])
    for event in go.values():
        event.set()
    await lanes.idle(10)
    assert sorted(done) == ["a1", "a2", "b1", "c1"]


async def test_no_job_inherits_what_another_left_in_context_variables() -> None:
    seen: list[int] = []
    number = ContextVar("number", default=0)

    async def run(job: int) -> None:
        seen.append(number.get())
        number.set(job)

    lanes: Lanes[int] = Lanes(1, run)
    for job in (1, 2, 3):
        lanes.put("a", job)
    await lanes.idle(10)
    assert seen == [0, 0, 0]


async def test_what_is_taken_out_of_the_lanes_does_not_run() -> None:
    done: list[int] = []
    go = asyncio.Event()

    async def run(job: int) -> None:
        await go.wait()
        done.append(job)

    lanes: Lanes[int] = Lanes(1, run)
    for job in range(4):
        lanes.put(job % 2, job)
    await asyncio.sleep(0)
    assert sorted(lanes.clear()) == [1, 2, 3]
    go.set()
    await lanes.idle(10)
    lanes.put(0, 4)
    await lanes.idle(10)
    assert done == [0, 4]


async def test_what_is_held_goes_on_as_its_newest_delivery() -> None:
    holdings = Holdings(60)
    first = delivery("e1", "a1")
    assert holdings.take(first)
    assert not holdings.take(delivery("e1", "a2"))
    assert first.ack_id == "a2"
    holdings.drop(first)
    assert holdings.take(delivery("e1", "a3"))
    assert len(holdings) == 1


async def test_what_its_handler_settled_or_what_is_replayed_is_news() -> None:
    holdings = Holdings(60)
    first = delivery("e1")
    holdings.take(first)
    await first.nack(delay=0)
    assert holdings.take(delivery("e1", "a2"))
    assert holdings.take(delivery("e1", "a3", is_replay=True))


async def test_what_was_handled_in_vain_is_known_once_and_not_for_ever() -> None:
    holdings = Holdings(60)
    holdings.handled_in_vain(delivery("e"))
    assert not holdings.was_handled(delivery("e", is_replay=True))
    assert not holdings.was_handled(delivery("e"))
    for number in range(REMEMBERED + 1):
        holdings.handled_in_vain(delivery(f"e{number}"))
    assert not holdings.was_handled(delivery("e0"))
    assert holdings.was_handled(delivery("e1"))
    assert not holdings.was_handled(delivery("e1"))


async def test_what_is_settled_meanwhile_goes_together_by_what_is_said_of_it() -> None:
    requests: list[Request] = []
    go = asyncio.Event()

    async def send(request: Request) -> list[pb.SettleResult]:
        requests.append(request)
        await go.wait()
        results: list[pb.SettleResult] = await answering()(request)
        return results

    settler = Settler(send)
    first = asyncio.create_task(settler.settle("a", ACK))
    await eventually(lambda: requests)
    more = [
        asyncio.create_task(settler.settle(each, verdict))
        for each, verdict in (("b", ACK), ("c", Nack(pb.NACK_ACTION_RETRY, "no")), ("d", ACK), ("e", Extend(5)))
    ]
    await asyncio.sleep(0)
    go.set()
    assert set(await asyncio.gather(first, *more)) == {Outcome.DONE}
    assert [list(request.ack_ids) for request in requests] == [["a"], ["b", "d"], ["c"], ["e"]]


async def test_each_learns_its_own_outcome_and_a_failure_fails_those_of_its_message() -> None:
    settler = Settler(answering(Outcome.DONE, Outcome.OUTDATED))
    assert await settler.settle_all(["a", "b"], ACK) == [Outcome.DONE, Outcome.OUTDATED]

    async def failing(request: Request) -> list[pb.SettleResult]:
        raise Unavailable("gone")

    with pytest.raises(Unavailable):
        await Settler(failing).settle("a", ACK)


def test_what_the_broker_would_refuse_is_refused_before_it_ends_the_stream() -> None:
    for bad in (lambda: Extend(0.5), lambda: Nack(pb.NACK_ACTION_RETRY, "", -1), lambda: Extend(50_000)):
        with pytest.raises(InvalidArgument):
            bad()
    with pytest.raises(ValueError, match="reason"):
        Reject("")
    assert reason_of("a\n\x00b\ud800") == "a b?"
    assert len(reason_of("x" * 5_000)) == 1_024
