"""`eventbroker context`: names for brokers."""

from __future__ import annotations

import functools
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eventbroker_cli.command import told_examples, told_help
from eventbroker_cli.completing import context_names
from eventbroker_cli.contexts import Context, Contexts
from eventbroker_cli.exits import Failed, complain
from eventbroker_cli.output import Format, Output, table

if TYPE_CHECKING:
    from collections.abc import Callable

Name = Annotated[str, typer.Argument(help="The context.", show_default=False, autocompletion=context_names)]
As = Annotated[Format, typer.Option("--output", "-o", help="How the answer is printed.")]
File = Annotated[str | None, typer.Option(metavar="FILE", show_default=False)]


def add_to(app: typer.Typer) -> None:
    made: tuple[tuple[str, Callable[..., None], str], ...] = (
        ("ls", ls, "eventbroker context ls"),
        (
            "set",
            put,
            "eventbroker context set prod --url grpcs://broker.example.com:443 --token-file ~/.token --use",
        ),
        ("use", use, "eventbroker context use prod\neventbroker context use --none"),
        ("rm", rm, "eventbroker context rm prod"),
    )
    for name, function, examples in made:
        app.command(name, help=told_help(function), epilog=told_examples(examples))(_told(function))


def ls(output: As = Format.table) -> None:
    """List the contexts; * marks the one in use."""
    known, out = Contexts.load(), Output(output)
    contexts = [known.all[name] for name in sorted(known.all)]
    told = [asdict(each) | {"current": each.name == known.current} for each in contexts]
    if out.format is Format.json:
        out.json(told, indent=2)
    elif out.format is Format.ndjson:
        for each in told:
            out.line(each)
    else:
        rows = [("*" if each.name == known.current else "", each.name, each.url, each.tenant) for each in contexts]
        out.show(table(("", "name", "url", "tenant"), rows))


def put(
    name: Annotated[str, typer.Argument(help="A new name, or one whose fields change.", show_default=False)],
    url: Annotated[str | None, typer.Option(help="host:port, grpcs://host:port for TLS.", show_default=False)] = None,
    tenant: Annotated[str | None, typer.Option(help="Whose events are meant.", show_default=False)] = None,
    token_file: File = None,
    ca: File = None,
    cert: File = None,
    key: File = None,
    use: Annotated[bool, typer.Option("--use", help="Use it from now on.")] = False,
) -> None:
    """Make a context, or change the fields that are given.

    Files are named, not copied: --token-file with the credential, --ca, --cert and --key in PEM for TLS.
    """
    known = Contexts.load()
    given = {"url": url, "tenant": tenant}
    files = {"token_file": token_file, "ca": ca, "cert": cert, "key": key}
    for field, path in files.items():
        given[field] = str(Path(path).expanduser().absolute()) if path else path
    said: dict[str, Any] = {field: value for field, value in given.items() if value is not None}
    made = replace(known.all.get(name, Context(name)), **said)
    if not made.url:
        raise Failed("a context needs a --url")
    known = known.put(made)
    (known.using(name) if use else known).save()


def use(
    name: Annotated[str, typer.Argument(help="The context.", autocompletion=context_names)] = "",
    none: Annotated[bool, typer.Option("--none", help="Use none.")] = False,
) -> None:
    """Use a context whenever the command line and the environment name no broker."""
    if bool(name) == none:
        raise Failed("give a context, or --none")
    Contexts.load().using(name).save()
    if os.environ.get("EVENTBROKER_URL"):
        complain("EVENTBROKER_URL is set, and goes before it")


def rm(name: Name) -> None:
    """Forget a context."""
    Contexts.load().without(name).save()


def _told(function: Callable[..., None]) -> Callable[..., None]:
    """The same, with its failures as one line and an exit code."""

    @functools.wraps(function)
    def do(**arguments: Any) -> None:
        try:
            function(**arguments)
        except Failed as failure:
            complain(str(failure))
            raise typer.Exit(failure.code) from None

    return do
