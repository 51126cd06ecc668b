"""PublishStreams: which are open, and when they end."""

from __future__ import annotations

import pytest
from eventbroker_server.domain.errors import ShuttingDown
from eventbroker_server.rpc.publish_stream import PublishStreams


async def test_once_closed_those_that_are_open_end_and_no_more_are_opened() -> None:
    streams = PublishStreams(most=10, max_age=3_600)
    async with streams.open() as ending:
        assert not ending.is_set()
        streams.close()
        assert ending.is_set()
        with pytest.raises(ShuttingDown):
            async with streams.open():
                pass
