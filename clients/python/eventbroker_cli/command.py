"""How a command is made: an async function becomes one of typer, with the options that all of them have.

The function gets a Link and an Output first, then what is its own. Its docstring is the help text; examples stand below
it. What it raises becomes one line on stderr and an exit code (exits.py).
"""

from __future__ import annotations

import asyncio
import inspect
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any

import typer
from eventbroker_client import EventBrokerError
from rich.markup import escape

from eventbroker_cli.completing import context_names
from eventbroker_cli.exits import Code, Failed, code_of, complain, sentence_of
from eventbroker_cli.link import linked
from eventbroker_cli.output import Format, Output
from eventbroker_cli.target import target_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from eventbroker_cli.target import Target


def _everywhere(*names: str, help: str, **more: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel="Everywhere", show_default=False, **more)


_OUTPUT = _everywhere("--output", "-o", help="How answers are printed; table is for people.")
_URL = _everywhere("--url", metavar="HOST:PORT", help="The broker; grpcs:// for TLS. Else $EVENTBROKER_URL, or here.")
_CONTEXT = _everywhere(
    "--context", metavar="NAME", autocompletion=context_names, help="A broker by its name: see `eventbroker context`."
)
_TENANT = _everywhere("--tenant", "-t", metavar="NAME", help="Whose events are meant. Empty, for groups: all tenants'.")
_TIMEOUT = _everywhere("--timeout", metavar="SECONDS", min=0.1, help="How long to wait for an answer: 10.")

_SHARED: dict[str, tuple[Any, Any]] = {
    "output": (Annotated[Format, _OUTPUT], Format.table),
    "url": (Annotated[str | None, _URL], None),
    "context": (Annotated[str | None, _CONTEXT], None),
    "tenant": (Annotated[str | None, _TENANT], None),
    "timeout": (Annotated[float, _TIMEOUT], 10.0),
}


def command(
    app: typer.Typer, name: str, *, examples: str, panel: str | None = None
) -> Callable[[Callable[..., Awaitable[None]]], Callable[..., Awaitable[None]]]:
    """Registers `async def do(link: Link, out: Output, ...)`. Each line of `examples` is a command line; `panel` is its
    place in the list of all commands."""

    def register(function: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
        signature = inspect.signature(function, eval_str=True)
        own = list(signature.parameters.values())[2:]

        def do(**arguments: Any) -> None:
            shared = {each: arguments.pop(each) for each in _SHARED}
            out = Output(shared.pop("output"))

            def work(target: Target) -> Coroutine[Any, Any, None]:
                return _linked(function, target, out, arguments)

            run(lambda: target_of(**shared), work)

        told = [
            inspect.Parameter(each, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
            for each, (annotation, default) in _SHARED.items()
        ]
        parameters = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own] + told
        do.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        do.__annotations__ = {each.name: each.annotation for each in parameters}
        do.__name__ = function.__name__
        app.command(name, help=told_help(function), epilog=told_examples(examples), rich_help_panel=panel)(do)
        return function

    return register


def told_help(function: Callable[..., Any]) -> str:
    """A docstring with a line for each paragraph, which the terminal wraps."""
    paragraphs = inspect.cleandoc(function.__doc__ or "").split("\n\n")
    return escape("\n\n".join(" ".join(each.split()) for each in paragraphs))


def told_examples(examples: str) -> str:
    """Examples as they stand below a help text."""
    lines = [line.strip() for line in inspect.cleandoc(examples).splitlines()]
    return "Examples:\n" + "\n".join(f"  [cyan]{escape(line)}[/cyan]" for line in lines)


def group(name: str, help: str, app: typer.Typer, panel: str) -> typer.Typer:
    """Commands below one word."""
    made = typer.Typer(help=help, no_args_is_help=True, rich_markup_mode="rich")
    app.add_typer(made, name=name, rich_help_panel=panel)
    return made


def run(target: Callable[[], Target], work: Callable[[Target], Coroutine[Any, Any, None]]) -> None:
    """Does the work in an event loop of its own, and ends the command if it fails."""
    meant = "the broker"
    try:
        known = target()
        meant = known.url
        asyncio.run(work(known))
        sys.stdout.flush()
    except BaseExceptionGroup as several:  # of tasks: the first is why the others ended
        raise typer.Exit(_told(_first(several), meant)) from None
    except (Failed, EventBrokerError, BrokenPipeError, KeyboardInterrupt) as error:
        raise typer.Exit(_told(error, meant)) from None


def _told(error: BaseException, meant: str) -> Code:
    """Says what went wrong. Raises the error if nobody foresaw it."""
    if isinstance(error, Failed):
        complain(str(error))
        return error.code
    if isinstance(error, EventBrokerError):
        complain(sentence_of(error, meant))
        return code_of(error)
    if isinstance(error, BrokenPipeError):
        _let_go_of_stdout()
        return Code.BROKEN_PIPE
    if isinstance(error, KeyboardInterrupt):
        return Code.INTERRUPTED
    raise error


def _first(several: BaseExceptionGroup[BaseException]) -> BaseException:
    error = several.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


async def _linked(
    function: Callable[..., Awaitable[None]], target: Target, out: Output, arguments: dict[str, Any]
) -> None:
    async with linked(target) as link:
        await function(link, out, **arguments)


def _let_go_of_stdout() -> None:
    """Whoever read it is gone: what is still to be flushed must not complain."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
