"""How all commands behave: output, exit codes, contexts, completion, questions; and the server's own commands."""

from __future__ import annotations

import json
import re
import shlex
import signal
from typing import TYPE_CHECKING

import pytest
import typer
from eventbroker_cli.contexts import Context, Contexts
from eventbroker_cli.exits import Failed
from eventbroker_cli.program import app
from eventbroker_cli.target import LOCAL, target_of

from tests.client import event, publish
from tests.conftest import ROOT

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from tests.cli.command import Command
    from tests.client import Client
    from tests.conftest import BrokerProcess

COLOUR = "\x1b["


async def test_a_pipe_gets_no_colours_and_no_cut_columns_and_a_terminal_colours(
    eventbroker: Command, client: Client, tenant: str
) -> None:
    name = "a-group-with-a-name-that-is-longer-than-eighty-columns-of-a-terminal-would-ever-let-it-be-on-one-line"
    await client.create_group(name, tenant_id=tenant)
    assert name in (await eventbroker.done("groups", "ls")).out
    assert COLOUR not in (await eventbroker.done("groups", "ls")).out
    for no_color, colours in (("", True), ("1", False)):
        async with eventbroker.at_terminal("groups", "ls", NO_COLOR=no_color) as terminal:
            await terminal.shows("active")
            assert await terminal.ended() == 0
        assert (re.search(r"\x1b\[(\d+;)*3\dm", terminal.seen) is not None) == colours, terminal.seen


async def test_failures_are_one_line_and_a_code(eventbroker: Command) -> None:
    for arguments, code, line in (
        (("groups", "show", "none"), 3, r"eventbroker: There is no group none of tenant t-\w+\n"),
        (("events", "ls", "--aggregate", "/u1"), 2, r"eventbroker: '/u1' is no aggregate: .*\n"),
        (("events", "ls", "--tenant", "no tenant"), 2, r"eventbroker: tenant_id must be .*--tenant\n"),
        (("stats", "--url", "127.0.0.1:1"), 6, r"eventbroker: no answer from 127.0.0.1:1: .*`eventbroker serve`.*\n"),
        (("stats", "--context", "none"), 3, r"eventbroker: there is no context none; there are: none\n"),
    ):
        ended = await eventbroker(*arguments)
        assert (ended.code, ended.out) == (code, ""), ended.err
        assert re.fullmatch(line, ended.err), ended.err


async def test_none_is_no_number_of_events_to_make_up(eventbroker: Command, client: Client, tenant: str) -> None:
    ended = await eventbroker("publish", "test.happened", "Test/1", "--count", "0")
    assert ended.code == 2
    assert "--count" in ended.err
    assert (await eventbroker.done("events", "ls", "-o", "ndjson")).out == ""


async def test_the_version_is_told(eventbroker: Command) -> None:
    assert re.fullmatch(r"eventbroker \S+\n", (await eventbroker.done("--version")).out)


async def test_shells_complete_commands_and_the_names_of_groups(
    eventbroker: Command, client: Client, tenant: str
) -> None:
    await client.create_group("mailer", tenant_id=tenant)
    for words, offered in (("eventbroker gr", "groups"), ("eventbroker groups show m", "mailer")):
        place = str(len(words.split()) - 1)
        ended = await eventbroker(_EVENTBROKER_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=place)
        assert ended.out.split() == [offered]


async def test_contexts_are_kept_and_used(eventbroker: Command, served: BrokerProcess, tenant: str) -> None:
    await eventbroker.done("context", "set", "prod", "--url", "nowhere:1", "--token-file", "token")
    await eventbroker.done("context", "set", "here", "--url", served.target, "--tenant", tenant, "--use")
    listed = await eventbroker.done("context", "ls", "-o", "ndjson")
    assert [(each["name"], each["url"], each["current"]) for each in listed.lines] == [
        ("here", served.target, True),
        ("prod", "nowhere:1", False),
    ]
    used = {"EVENTBROKER_URL": "", "EVENTBROKER_TENANT": ""}
    await eventbroker.done("publish", "a.b", "A/1", **used)
    assert len((await eventbroker.done("events", "ls", "-o", "json", **used)).json) == 1
    await eventbroker.done("context", "rm", "here")
    assert (await eventbroker("context", "use", "here")).code == 3


def test_a_context_is_taken_as_a_whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "token").write_text("secret\n")
    prod = Context("prod", "grpcs://prod:1", tenant="acme", token_file=str(tmp_path / "token"))
    Contexts({"prod": prod}, current="prod").save()

    def named(*said: str | None, **environ: str) -> tuple[str, str, str | None]:
        url, context, tenant = said
        target = target_of(url, context, tenant, 1.0, environ)
        return target.url, target.tenant, target.token()

    assert named(None, None, None) == ("grpcs://prod:1", "acme", "secret")
    assert named(None, None, "") == ("grpcs://prod:1", "", "secret")
    assert named("else:1", None, None) == ("else:1", "", None)
    assert named(None, None, None, EVENTBROKER_URL="else:1", EVENTBROKER_TENANT="mine") == ("else:1", "mine", None)
    environ = {"EVENTBROKER_URL": "else:1", "EVENTBROKER_TENANT": "mine"}
    assert named(None, "prod", None, **environ) == ("grpcs://prod:1", "acme", "secret")
    Contexts.load().using("").save()
    assert named(None, None, None) == (LOCAL, "", None)
    with pytest.raises(Failed):
        named(None, None, None, EVENTBROKER_CONTEXT="none")


def test_every_example_of_the_docs_and_of_the_help_texts_is_understood() -> None:
    command: Any = typer.main.get_command(app)
    page = (ROOT / "docs" / "cli.md").read_text()
    helped = [each.epilog or "" for each in _commands(command)]
    examples = re.findall(
        r"(?:^|\| |\[cyan\])(?:\$ )?(eventbroker [a-z][^\n|<>&]*)", page + "\n".join(helped), re.MULTILINE
    )
    assert len(examples) > 100
    told = set()
    for example in examples:
        words = shlex.split(example.replace("[/cyan]", "").replace("\\[", "["), comments=True)[1:]
        told.add(words[0])
        parsed, group = typer.Context(command), command
        while hasattr(group, "commands"):
            name, *words = words
            group = group.commands[name]
        group.make_context(example, words, parent=parsed)  # raises a UsageError that names what is wrong
    assert told == set(command.commands)


def _commands(command: Any) -> list[Any]:
    below = [each for child in getattr(command, "commands", {}).values() for each in _commands(child)]
    return below or [command]


async def test_the_settings_of_the_server_are_shown_without_passwords(eventbroker: Command) -> None:
    secret = "s3cr3t@"  # noqa: S105 - of nothing
    ended = await eventbroker.done(
        *("config", "-o", "json"),
        EVENTBROKER_POSTGRES_URL=f"postgresql://me:{secret}@db/x?password={secret}",
        EVENTBROKER_REDIS_URL=f"redis://:{secret}@cache:1/0",
    )
    assert "s3cr3t" not in ended.out
    told = {each["name"]: (each["value"], each["from"]) for each in ended.json}
    assert told["redis_url"] == ("redis://:***@cache:1/0", "EVENTBROKER_REDIS_URL")
    assert told["port"] == (50051, "default")


async def test_the_schema_is_migrated_by_hand(eventbroker: Command, served: BrokerProcess) -> None:
    ended = await eventbroker("migrate", EVENTBROKER_POSTGRES_URL=served.endpoints["postgres"])
    assert ended.code == 0, ended.err
    assert re.fullmatch(r"nothing to do: the database is at \d{4}_\w+\.sql\n", ended.out)


async def test_serve_is_a_broker_until_it_is_interrupted(eventbroker: Command, served: BrokerProcess) -> None:
    stores = {f"EVENTBROKER_{name.upper()}_URL": served.endpoints[name] for name in ("postgres", "redis")}
    arguments = ("serve", "--port", "0", "--http-port", "-1", "--log-level", "ERROR")
    async with eventbroker.started(*arguments, **stores) as process:
        assert process.stdout
        ready = ""
        while not (found := re.search(r"ready on (\S+) ", ready)):
            ready = (await process.stdout.readline()).decode()
            assert ready
        url = {"EVENTBROKER_URL": found[1]}
        assert (await eventbroker.done("publish", "a.b", "A/1", "-o", "json", **url)).json["aggregate_version"] == "1"
        process.send_signal(signal.SIGINT)
        await process.communicate()
        assert process.returncode == 0


async def test_an_export_is_handed_over_with_its_options(
    eventbroker: Command, served: BrokerProcess, client: Client, tenant: str, tmp_path: Path
) -> None:
    (event_id,) = await publish(client, 1, tenant_id=tenant)
    await client.publish(event())
    file = tmp_path / "export.ndjson"
    postgres = {"EVENTBROKER_POSTGRES_URL": served.endpoints["postgres"]}
    ended = await eventbroker("export", str(file), "--tenant", tenant, **postgres)
    assert ended.code == 0, ended.err
    exported = [json.loads(line) for line in file.read_text().splitlines()]
    assert [each["id"] for each in exported if "specversion" in each] == [event_id]
