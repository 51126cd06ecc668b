"""What the rules need of the two stores, as promises.

broker/ knows these and nothing of PostgreSQL, Redis or protobuf; postgres/, redis/ and rpc/ keep the promises, and
tests/contract/ holds them to it on every engine we support. All methods may raise StoreUnavailable (EventLog,
GroupStore, DeadLetterStore) or StreamsUnavailable (Streams): then what they were to do may have happened or not.
"""

from __future__ import annotations

from eventbroker_server.ports.stores import (
    Appended,
    Collision,
    DeadLetterStore,
    Decision,
    Died,
    Due,
    EventLog,
    Failure,
    GroupStore,
    Leftovers,
    Membership,
    RetryStore,
    Row,
    Trouble,
    Waiting,
    WaitingGroup,
)
from eventbroker_server.ports.streams import (
    Codec,
    Entry,
    GroupState,
    Holding,
    Outcome,
    Pending,
    Progress,
    Received,
    Refiltered,
    Signal,
    Stale,
    Streams,
    Where,
    Whereabouts,
)

__all__ = [
    "Appended",
    "Codec",
    "Collision",
    "DeadLetterStore",
    "Decision",
    "Died",
    "Due",
    "Entry",
    "EventLog",
    "Failure",
    "GroupState",
    "GroupStore",
    "Holding",
    "Leftovers",
    "Membership",
    "Outcome",
    "Pending",
    "Progress",
    "Received",
    "Refiltered",
    "RetryStore",
    "Row",
    "Signal",
    "Stale",
    "Streams",
    "Trouble",
    "Waiting",
    "WaitingGroup",
    "Where",
    "Whereabouts",
]
