"""Events of the domain for tests: one at a time, and as Hypothesis strategies that reach for the edges."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime
from typing import Any

from eventbroker_server.domain.event import DataForm, Event, Metadata
from hypothesis import strategies as st

FIRST_MOMENT = datetime(1, 1, 1, 0, 0, 1, tzinfo=UTC)
LAST_MOMENT = datetime(9999, 12, 31, 23, 59, 58, 999999, tzinfo=UTC)


def domain_event(**changes: Any) -> Event:
    """A valid event with an id and an aggregate of its own; changes replace fields."""
    made = Event(
        tenant_id="acme",
        event_id=str(uuid.uuid4()),
        event_type="user.created",
        event_version="v1.0",
        aggregate_type="User",
        aggregate_id=f"u-{uuid.uuid4().hex[:8]}",
        user_id="",
        session_id="",
        request_id="",
        correlation_id="",
        timestamp=datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
        form=DataForm.JSON,
        content_type="",
        content=b"{}",
        metadata=Metadata(),
    )
    return made._replace(**changes)


_names = st.from_regex(r"[A-Za-z0-9._-]{1,128}", fullmatch=True)
_types = st.from_regex(r"[a-z0-9_-]{1,9}(\.[a-z0-9_-]{1,9}){0,7}", fullmatch=True)
_ids = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=256)
_maybe_ids = st.just("") | _ids
_moments = st.datetimes(
    FIRST_MOMENT.replace(tzinfo=None), LAST_MOMENT.replace(tzinfo=None), timezones=st.just(UTC)
) | st.sampled_from([FIRST_MOMENT, LAST_MOMENT])
_attribute_values = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=200)

_json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
_json = st.builds(
    lambda value, ascii_only, indent: json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode(),
    _json_values,
    st.booleans(),
    st.none() | st.just(1),
)
_data = (
    st.tuples(st.just(DataForm.JSON), st.just(""), _json)
    | st.tuples(st.just(DataForm.MESSAGE), _ids.map("example.org/{}".format), st.binary(max_size=200))
    | st.tuples(st.just(DataForm.BINARY), _ids, st.binary(max_size=200))
)
_metadata = st.builds(
    Metadata,
    source=_maybe_ids,
    caused_by=_maybe_ids,
    entity_version=st.integers(0, 2**63 - 1),
    tags=st.lists(_ids, max_size=4).map(tuple),
    attributes=st.dictionaries(_names, _attribute_values, max_size=4).map(lambda said: tuple(sorted(said.items()))),
)


@st.composite
def domain_events(draw: st.DrawFn) -> Event:
    """Any event that a publisher may send."""
    form, content_type, content = draw(_data)
    return Event(
        tenant_id=draw(_names),
        event_id=draw(_ids),
        event_type=draw(_types),
        event_version=draw(_names),
        aggregate_type=draw(_names),
        aggregate_id=draw(_ids),
        user_id=draw(_maybe_ids),
        session_id=draw(_maybe_ids),
        request_id=draw(_maybe_ids),
        correlation_id=draw(_maybe_ids),
        timestamp=draw(_moments),
        form=form,
        content_type=content_type,
        content=content,
        metadata=draw(st.just(Metadata()) | _metadata),
    )
