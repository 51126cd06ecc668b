"""A plugin of pytest: the fixture `eventbroker`, a real broker for the tests of those who use the SDK.

pytest loads this file into every run, so it imports nothing until the fixture is asked for; that is why it is no part
of eventbroker_client, whose import loads gRPC.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from eventbroker_pytest.tenant import Tenant


@pytest.fixture(scope="session")
def eventbroker_target() -> Iterator[str]:
    """HOST:PORT of a broker with engines of its own, started for the session, and gone with its data at the end.

    Redefine it to test on a broker of yours.
    """
    from eventbroker_pytest.process import broker_process

    with broker_process() as target:
        yield target


@pytest.fixture
def eventbroker(eventbroker_target: str) -> Tenant:
    """A tenant of the test's own on the broker: `async with eventbroker.connect() as broker: ...`"""
    from eventbroker_pytest.tenant import Tenant

    return Tenant(eventbroker_target, f"t-{uuid.uuid4().hex}")
