"""What a consumer asks the broker for."""

from __future__ import annotations

import os
import re
import socket
import uuid
from typing import TYPE_CHECKING, Literal

from eventbroker.v1 import subscriber_service_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterable

Start = Literal["earliest", "latest"]

_STARTS: dict[Start | None, pb.StartPoint.ValueType] = {
    None: pb.START_POINT_UNSPECIFIED,
    "earliest": pb.START_POINT_EARLIEST,
    "latest": pb.START_POINT_LATEST,
}


def wish_of(
    group: str,
    types: Iterable[str],
    *,
    tenant: str,
    consumer_id: str,
    start: Start | None,
    ack_deadline: float | None,
    max_unsettled: int,
    max_batch: int,
) -> pb.SubscribeRequest:
    """Empty and 0 stand for the broker's defaults; a consumer id is made up, and kept over reconnects."""
    if isinstance(types, str):
        types = [types]
    wish = pb.SubscribeRequest(
        group=group,
        consumer_id=consumer_id or made_up_id(),
        event_types=types,
        tenant_id=tenant,
        start=_STARTS[start],
        flow_control=pb.FlowControl(max_unsettled_events=max_unsettled, max_batch_events=max_batch),
    )
    if ack_deadline is not None:
        wish.ack_deadline.FromMicroseconds(round(ack_deadline * 1e6))
    return wish


def made_up_id() -> str:
    """A consumer id that tells the host and the process."""
    host = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:64]
    return f"{host}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
