"""What a call was refused with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import grpc
import pytest

from tests.client import error_info

if TYPE_CHECKING:
    from collections.abc import Awaitable


class Refusal(NamedTuple):
    """A status of the broker's own: its code, its reason, and its details by name."""

    code: grpc.StatusCode
    reason: str
    details: dict[str, Any]

    @property
    def violations(self) -> dict[str, str]:
        """The fields that break a rule, with the rules."""
        return {each.field: each.description for each in self.details["BadRequest"].field_violations}


async def refusal(call: Awaitable[object]) -> Refusal:
    """Await a call that has to fail, with an ErrorInfo of the broker."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    error = caught.value
    details = error_info(error)
    assert "ErrorInfo" in details, error
    assert details["ErrorInfo"].domain == "eventbroker"
    assert details["ErrorInfo"].reason
    return Refusal(error.code(), details["ErrorInfo"].reason, details)


async def refused(call: Awaitable[object], code: grpc.StatusCode, reason: str) -> Refusal:
    """The same, with this code and this reason."""
    refusal_ = await refusal(call)
    assert (refusal_.code, refusal_.reason) == (code, reason)
    return refusal_
