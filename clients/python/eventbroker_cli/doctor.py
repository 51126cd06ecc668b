"""`eventbroker doctor`: what is wrong, and what to do about it."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer
from eventbroker.v1 import group_service_pb2 as groups_pb
from eventbroker.v1 import stats_service_pb2 as stats_pb
from eventbroker_client import EventBrokerError
from rich.text import Text

from eventbroker_cli.command import command
from eventbroker_cli.exits import Code, Failed
from eventbroker_cli.link import Link
from eventbroker_cli.output import Output, table
from eventbroker_cli.readable import counted, duration, seconds_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_EXAMPLES = """
eventbroker doctor
eventbroker doctor --tenant acme --old 60
eventbroker doctor --http http://10.0.0.7:9464 -o json
"""
_PATIENCE = 5.0  # seconds for a page
_SKEW = 2.0  # seconds; the broker tells its time to the second
_MOST_GROUPS = 200  # looked at one by one
_STYLES = {"ok": "green", "warning": "yellow", "wrong": "red"}


class Finding(NamedTuple):
    """`state` is "ok", "warning" or "wrong"; `todo` is empty if there is nothing to do."""

    state: str
    what: str
    todo: str = ""


def add_to(app: typer.Typer) -> None:
    command(app, "doctor", examples=_EXAMPLES, panel="Look and mend")(doctor)


async def doctor(
    link: Link,
    out: Output,
    http: Annotated[str, typer.Option(help="The broker's pages; empty: do not ask.")] = "http://127.0.0.1:9464",
    old: Annotated[float, typer.Option(min=0, help="Seconds after which an unsettled event is a warning.")] = 300.0,
) -> None:
    """Look for what is wrong: the broker, its stores, clocks, groups; and say what to do.

    Ends with 1 if something is wrong; warnings alone end with 0. Settings need no look: a broker does not serve on
    unsafe ones (see `eventbroker config`).
    """
    findings = [finding async for finding in _findings(link, http, old)]
    if out.for_people:
        rows = [(Text(each.state, _STYLES[each.state]), each.what, each.todo) for each in findings]
        out.show(table(("", "what", "what to do"), rows))
    else:
        out.json([each._asdict() for each in findings], indent=2)
    if wrong := sum(each.state == "wrong" for each in findings):
        raise Failed(f"{wrong} wrong", Code.PARTLY)


async def _findings(link: Link, http: str, old: float) -> AsyncIterator[Finding]:
    try:
        stats = await link.ask(link.stats.GetStats, stats_pb.GetStatsRequest(tenant_id=link.tenant))
    except EventBrokerError as error:
        yield Finding("wrong", f"{link.target.url} does not answer: {error}", "eventbroker serve, or --url")
    else:
        yield Finding("ok", f"{link.target.url} answers; its log has {counted(len(stats.groups), 'group')}")
        for group in stats.groups:
            age = seconds_of(group.oldest_unsettled_age)
            if age > old:
                tenant = "" if group.tenant_id == "*" else f" -t {group.tenant_id}"
                yield Finding(
                    "warning",
                    f"group {group.name}: {counted(group.lag, 'position')} behind, and the oldest for {duration(age)}",
                    f"eventbroker groups show {group.name}{tenant}: are its consumers there?",
                )
        async for finding in _of_groups(link):
            yield finding
    if http:
        for finding in await asyncio.to_thread(_of_pages, http):
            yield finding


async def _of_groups(link: Link) -> AsyncIterator[Finding]:
    asked = groups_pb.ListGroupsRequest(tenant_id=link.tenant)
    tenant = f" -t {link.tenant}" if link.tenant else ""
    async for group in link.pages(link.groups.ListGroups, asked, "groups", _MOST_GROUPS):
        named = groups_pb.GetGroupRequest(name=group.name, tenant_id=link.tenant)
        status = (await link.ask(link.groups.GetGroup, named)).status
        if group.paused:
            yield Finding("warning", f"group {group.name} is paused", f"eventbroker groups resume {group.name}{tenant}")
        if status.dead_letters:
            yield Finding(
                "warning",
                f"group {group.name} has given up {counted(status.dead_letters, 'event')}",
                f"eventbroker dlq ls {group.name}{tenant}, then dlq redrive",
            )


def _of_pages(http: str) -> list[Finding]:
    url = http.rstrip("/") + "/readyz"
    if not url.startswith(("http://", "https://")):
        return [Finding("wrong", f"--http {http} is no address of a page", "such as http://127.0.0.1:9464")]
    try:
        with urllib.request.urlopen(url, timeout=_PATIENCE) as answer:  # noqa: S310 - of these schemes only
            page, date = answer.read(), answer.headers["date"]
    except urllib.error.HTTPError as error:  # not ready, and says why
        page, date = error.read(), error.headers["date"]
    except (OSError, ValueError) as error:
        return [Finding("warning", f"{url} does not answer: {error}", "--http, or EVENTBROKER_HTTP_PORT of the broker")]
    found = []
    try:
        parts: dict[str, str] = json.loads(page)
        for part, state in parts.items():
            good = state in ("ok", "serving")
            todo = "" if good else "see to it, and look at the broker's log"
            found.append(Finding("ok" if good else "wrong", f"{part}: {state}", todo))
        skew = abs((datetime.now(UTC) - parsedate_to_datetime(date)).total_seconds())
    except (ValueError, TypeError, AttributeError):
        return [*found, Finding("warning", f"{url} is not a page of the broker", "--http")]
    if skew > _SKEW:
        found.append(Finding("warning", f"clocks differ by {duration(skew)}", "NTP, here or there"))
    else:
        found.append(Finding("ok", "clocks agree to the second"))
    return found
