"""The demo's faults: each is planned, bites once, and says so when it did not."""

from __future__ import annotations

import pytest
from eventbroker_cli.demo.faults import Faults
from eventbroker_cli.demo.ledger import Ledger
from eventbroker_cli.demo.options import CannotStart, Options, read_options
from eventbroker_cli.demo.screen import LiveScreen

EVENTS = 10


def faults_of(ledger: Ledger, redis_url: str = "") -> Faults:
    options = Options(run_id="run", events=EVENTS, redis_url=redis_url)
    return Faults(options, ledger.groups["all"], LiveScreen(options))


@pytest.fixture
def ledger() -> Ledger:
    return Ledger("run", EVENTS, ("user.created",), {"all": ("*",), "other": ("*",)})


def deliver(ledger: Ledger, number: int) -> None:
    ledger.note_published(f"run-{number}", "user.created")
    for group in ledger.groups.values():
        group.note_delivery(f"run-{number}", "user.created", 1 + number)


def test_one_consumer_of_the_group_is_killed_and_no_other(ledger: Ledger) -> None:
    faults = faults_of(ledger)
    killed = []
    for number in range(EVENTS):
        deliver(ledger, number)
        killed += [(number, name) for name, group in ledger.groups.items() if faults.kills_consumer_of(group)]
    assert killed == [(3, "all")]  # with 40 % of the deliveries


@pytest.mark.parametrize(("dropped", "bit"), [(0, False), (1, True)])
def test_killing_a_consumer_bites_only_if_it_held_deliveries(ledger: Ledger, dropped: int, bit: bool) -> None:
    faults = faults_of(ledger)
    faults.killed("all-1", dropped)
    assert (bool(faults.happened), bool(faults.failed)) == (bit, not bit)


def test_url_that_is_none_of_redis_is_refused_before_the_run(ledger: Ledger) -> None:
    with pytest.raises(CannotStart, match="--redis-url"):
        faults_of(ledger, "postgresql://localhost")


def test_no_redis_is_taken_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTBROKER_REDIS_URL", "redis://shared")
    monkeypatch.setenv("EVENTBROKER_TARGET", "elsewhere:1")
    options = read_options([])
    assert (options.target, options.redis_url) == ("elsewhere:1", "")


def test_url_of_redis_without_a_target_is_bad_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        read_options(["--target", "", "--redis-url", "redis://shared"])
    assert ended.value.code == 2
    assert "only with --target" in capsys.readouterr().err
