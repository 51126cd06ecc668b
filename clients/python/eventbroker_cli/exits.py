"""How a command ends: what went wrong as one line on stderr, and an exit code that scripts can rely on."""

from __future__ import annotations

import sys
from enum import IntEnum

import eventbroker_client as sdk

from eventbroker_cli.readable import clean


class Code(IntEnum):
    """The exit codes; docs/cli.md tells them to people."""

    DONE = 0
    PARTLY = 1  # not all of it was done, or something was found to be wrong
    USAGE = 2  # the command line, its input, or a value that the broker refuses
    NOT_FOUND = 3
    CONFLICT = 4  # it exists, is in use, or is not as expected; nothing was changed
    DENIED = 5
    UNAVAILABLE = 6  # no answer, or too much to do: try again; whether anything was done is not known
    INTERRUPTED = 130
    BROKEN_PIPE = 141  # whoever read the output went away


class Failed(Exception):
    """A command cannot go on: the message is for people."""

    def __init__(self, message: str, code: Code = Code.USAGE) -> None:
        super().__init__(message)
        self.code = code


_BY_REASON = {
    "INVALID_ARGUMENT": Code.USAGE,
    "OUT_OF_RANGE": Code.USAGE,
    "POSITION_BEYOND": Code.USAGE,
    "VERSION_BEYOND": Code.USAGE,
    "UNIMPLEMENTED": Code.USAGE,
    "ALREADY_EXISTS": Code.CONFLICT,
    "EVENT_ID_REUSED": Code.CONFLICT,
    "FAILED_PRECONDITION": Code.CONFLICT,
    "GROUP_DELETED": Code.CONFLICT,
    "GROUP_EXISTS": Code.CONFLICT,
    "GROUP_IN_USE": Code.CONFLICT,
    "GROUP_MISMATCH": Code.CONFLICT,
    "CONSUMER_REPLACED": Code.CONFLICT,
    "SNAPSHOT_AHEAD": Code.CONFLICT,
    "VERSION_CONFLICT": Code.CONFLICT,
}


def code_of(error: sdk.EventBrokerError) -> Code:
    if isinstance(error, sdk.NotFound):
        return Code.NOT_FOUND
    if isinstance(error, (sdk.Unauthenticated, sdk.PermissionDenied)):
        return Code.DENIED
    if isinstance(error, (sdk.Unavailable, sdk.Overloaded)):
        return Code.UNAVAILABLE
    return _BY_REASON.get(error.reason, Code.PARTLY)


def sentence_of(error: sdk.EventBrokerError, target: str) -> str:
    """What a person should read of an error of the broker at `target`."""
    if error.reason == "UNAVAILABLE":
        cause = error.message.rpartition("last error: ")[2]
        return f"no answer from {target}: {cause}. Is a broker running there? `eventbroker serve` starts one"
    if isinstance(error, sdk.InvalidArgument) and error.violations:
        told = "; ".join(f"{violation.field} {violation.rule}" for violation in error.violations)
        return f"{told}. Whose? Say --tenant" if any(each.field == "tenant_id" for each in error.violations) else told
    if isinstance(error, sdk.VersionConflict) and error.conflicts:
        return "; ".join(f"{conflict.aggregate}: {conflict.description}" for conflict in error.conflicts)
    untold = {name: value for name, value in sorted(error.metadata.items()) if value and value not in error.message}
    actual = ", ".join(f"{name} {value}" for name, value in untold.items())
    return error.message.rstrip(".") + (f" ({actual})" if actual else "")


def complain(text: str) -> None:
    """One line on stderr."""
    print(f"eventbroker: {clean(text)}", file=sys.stderr, flush=True)
