"""A stored event as a line of JSON, after CloudEvents 1.0, and back: nothing is lost, to the byte.

What is empty is left out. Numbers of 64 bits are text, since CloudEvents has none of more than 32. JSON data stands as
it came in `data`, which is the last member, so that its text is found again without being made anew; JSON that would
break the line stands in data_base64, as all other data does.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from urllib.parse import quote, unquote

import orjson

from eventbroker_server.domain.errors import InvalidArgument, Violation
from eventbroker_server.domain.event import DataForm, Event, Metadata, StoredEvent
from eventbroker_server.domain.names import (
    ID_RULE,
    NAME_RULE,
    TYPE_RULE,
    TYPE_URL_RULE,
    is_event_type,
    is_id,
    is_name,
    is_type_url,
)

BEGIN = b'{"specversion":"1.0",'  # of every line that is an event
_DATA = b',"data":'  # no text before it can hold this: there a quote has a backslash
_FORMS = {DataForm.JSON: "json", DataForm.MESSAGE: "message", DataForm.BINARY: "binary"}
_CONTENT_TYPES = {DataForm.JSON: "application/json", DataForm.MESSAGE: "application/protobuf"}
_LARGEST = 2**63 - 1


def event_line(shard: int, stored: StoredEvent) -> bytes:
    """The line of an event, without its end."""
    event, metadata = stored.event, stored.event.metadata
    said: dict[str, Any] = {
        "specversion": "1.0",
        "id": event.event_id,
        "source": _source(event.tenant_id, metadata.source),
        "type": event.event_type,
        "subject": f"{event.aggregate_type}/{event.aggregate_id}",
        "time": _text(event.timestamp),
        "tenantid": event.tenant_id,
        "eventversion": event.event_version,
        "aggregatetype": event.aggregate_type,
        "aggregateid": event.aggregate_id,
        "aggregateversion": str(stored.aggregate_version),
        "shard": shard,
        "position": str(stored.position),
        "recordedtime": _text(stored.record_time),
    }
    optional = {
        "userid": event.user_id,
        "sessionid": event.session_id,
        "requestid": event.request_id,
        "correlationid": event.correlation_id,
        "causedby": metadata.caused_by,
        "entityversion": str(metadata.entity_version or ""),
        "tags": _json(list(metadata.tags)) if metadata.tags else "",
        "attributes": _json(dict(metadata.attributes)) if metadata.attributes else "",
    }
    said |= {name: text for name, text in optional.items() if text}
    said["datacontenttype"] = _CONTENT_TYPES.get(event.form, event.content_type)
    if event.form == DataForm.JSON and _stands_in_a_line(event.content):
        return orjson.dumps(said)[:-1] + _DATA + event.content + b"}"
    said["dataform"] = _FORMS[event.form]
    if event.form == DataForm.MESSAGE:
        said["messagetype"] = event.content_type
    said["data_base64"] = b64encode(event.content).decode()
    return orjson.dumps(said)


def event_of(line: bytes) -> tuple[int, StoredEvent]:
    """The shard of an event, and the event, from its line. Raises InvalidArgument with every fault of it."""
    attributes, mark, data = line.rstrip(b"\n").partition(_DATA)
    try:
        said = orjson.loads(attributes + b"}" if mark else attributes)
        if mark:
            orjson.loads(data[:-1])
            if data[-1:] != b"}":
                raise ValueError("nothing closes it")
        if not isinstance(said, dict):
            raise ValueError("it is another kind of value")
    except ValueError as exc:
        raise InvalidArgument([Violation("the line", f"is no JSON object with data as its last: {exc}")]) from exc
    read = _Attributes(said)
    event = Event(
        tenant_id=read.text("tenantid", is_name, NAME_RULE),
        event_id=read.text("id", is_id, ID_RULE),
        event_type=read.text("type", is_event_type, TYPE_RULE),
        event_version=read.text("eventversion", is_name, NAME_RULE),
        aggregate_type=read.text("aggregatetype", is_name, NAME_RULE),
        aggregate_id=read.text("aggregateid", is_id, ID_RULE),
        user_id=read.optional("userid"),
        session_id=read.optional("sessionid"),
        request_id=read.optional("requestid"),
        correlation_id=read.optional("correlationid"),
        timestamp=read.moment("time"),
        form=DataForm.JSON,
        content_type="",
        content=data[:-1],
        metadata=Metadata(
            read.source(),
            read.optional("causedby"),
            read.number("entityversion", "0"),
            read.tags(),
            read.attributes(),
        ),
    )
    if not mark:
        event = event._replace(**read.data())
    shard = read.shard()
    stored = StoredEvent(event, read.number("position"), read.number("aggregateversion"), read.moment("recordedtime"))
    if read.violations:
        raise InvalidArgument(read.violations)
    return shard, stored


class _Attributes:
    """The attributes of an event; what is wrong with one is added to `violations`."""

    def __init__(self, said: dict[str, Any]) -> None:
        self._said = said
        self.violations: list[Violation] = []

    def wrong(self, name: str, rule: str) -> None:
        self.violations.append(Violation(name, rule))

    def text(self, name: str, allowed: Any, rule: str) -> str:
        text = self._said.get(name, "")
        if not (isinstance(text, str) and allowed(text)):
            self.wrong(name, rule)
            return ""
        return text

    def optional(self, name: str) -> str:
        return self.text(name, is_id, ID_RULE) if name in self._said else ""

    def moment(self, name: str) -> datetime:
        try:
            moment = datetime.fromisoformat(self._said[name])
            if moment.tzinfo is UTC:
                return moment
        except (KeyError, TypeError, ValueError):
            pass
        self.wrong(name, "must be a time in UTC, as 2026-01-02T03:04:05.678901Z")
        return datetime.min.replace(tzinfo=UTC)

    def number(self, name: str, default: str = "") -> int:
        text = self._said.get(name, default)
        if isinstance(text, str) and text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= _LARGEST:
            return int(text)
        self.wrong(name, f"must be a whole number from 0 to {_LARGEST}, as text")
        return 0

    def shard(self) -> int:
        shard = self._said.get("shard")
        if type(shard) is int and shard >= 0:
            return shard
        self.wrong("shard", "must be a whole number, not negative")
        return 0

    def source(self) -> str:
        """The source of the metadata, which stands behind the tenant."""
        text, tenant = self._said.get("source"), f"/{self._said.get('tenantid')}"
        if text == tenant:
            return ""
        if (
            not isinstance(text, str)
            or not text.startswith(tenant + "/")
            or not is_id(found := _unquoted(text, tenant))
        ):
            self.wrong("source", "must be /TENANT, or /TENANT/SOURCE percent-encoded")
            return ""
        return found

    def tags(self) -> tuple[str, ...]:
        tags = self._parsed("tags", [])
        if isinstance(tags, list) and all(isinstance(tag, str) and is_id(tag) for tag in tags):
            return tuple(tags)
        self.wrong("tags", "must be the JSON text of a list of tags")
        return ()

    def attributes(self) -> tuple[tuple[str, str], ...]:
        found = self._parsed("attributes", {})
        if isinstance(found, dict) and all(
            is_name(name) and isinstance(value, str) and "\0" not in value for name, value in found.items()
        ):
            return tuple(sorted(found.items()))
        self.wrong("attributes", "must be the JSON text of an object of texts, with names as keys")
        return ()

    def _parsed(self, name: str, default: Any) -> Any:
        if name not in self._said:
            return default
        try:
            return orjson.loads(self._said[name])
        except ValueError:
            return None

    def data(self) -> dict[str, Any]:
        """The fields of an event with its data in base64."""
        form = next((form for form, name in _FORMS.items() if name == self._said.get("dataform")), None)
        try:
            content = b64decode(self._said["data_base64"], validate=True)
        except (KeyError, TypeError, ValueError):
            self.wrong("data_base64", "must be base64, where there is no data")
            return {}
        if form is None:
            self.wrong("dataform", f"must be one of {', '.join(_FORMS.values())}, where there is data_base64")
            return {}
        content_type = ""
        if form == DataForm.MESSAGE:
            content_type = self.text("messagetype", is_type_url, TYPE_URL_RULE)
        elif form == DataForm.BINARY:
            content_type = self.text("datacontenttype", is_id, ID_RULE)
        return {"form": form, "content_type": content_type, "content": content}


@lru_cache(1024)
def _source(tenant_id: str, source: str) -> str:
    """What makes ids unique: the tenant, and which of its services spoke."""
    return f"/{tenant_id}/{quote(source, safe='')}" if source else f"/{tenant_id}"


@lru_cache(1024)
def _unquoted(text: str, tenant: str) -> str:
    return unquote(text[len(tenant) + 1 :])


def _text(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()


def _stands_in_a_line(content: bytes) -> bool:
    if b"\n" in content or b"\r" in content:
        return False
    try:
        orjson.loads(content)
    except ValueError:
        return False
    return True
