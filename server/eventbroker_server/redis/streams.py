"""Redis Streams: keeps the promises of ports.Streams. Each method is one script or one command; but what was trimmed
while it was pending is moved first, by a script of its own."""

from __future__ import annotations

from eventbroker_server.redis.keys import FAILING
from eventbroker_server.redis.managing import Managing
from eventbroker_server.redis.ordering import Ordering
from eventbroker_server.redis.reading import Reading
from eventbroker_server.redis.relaying import Relaying
from eventbroker_server.redis.settling import Settling


class RedisStreams(Relaying, Reading, Ordering, Settling, Managing):
    """One object, in parts by what they are for."""

    aside = FAILING
