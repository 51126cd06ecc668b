"""Asking before something is destroyed."""

from __future__ import annotations

import sys

import typer

from eventbroker_cli.exits import Code, Failed


def sure(question: str, *, yes: bool) -> None:
    """Returns if the answer is yes. Raises Failed if it is no, or if nobody is there to answer."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise Failed(f"{question} Nobody can answer here: say --yes")
    try:
        agreed = typer.confirm(question, err=True)
    except typer.Abort:  # Ctrl-C, or the end of input
        raise KeyboardInterrupt from None
    if not agreed:
        raise Failed("nothing was changed", Code.PARTLY)
