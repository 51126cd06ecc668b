"""PostgreSQL and Valkey as children of the broker, for use on one machine.

The engines listen on Unix sockets only, keep their data below one data directory, which one broker at a time may
use, and never outlive the broker, even if it is killed. An engine that dies is restarted. As root they run as the
user nobody, since PostgreSQL does not run as root. Nothing here knows what is stored in them.
"""

from eventbroker_server.engines.embedded import (
    Engines,
    embedded_engines,
    embedded_postgres,
    embedded_valkey,
)
from eventbroker_server.engines.process import EmbeddedEngine

__all__ = ["EmbeddedEngine", "Engines", "embedded_engines", "embedded_postgres", "embedded_valkey"]
