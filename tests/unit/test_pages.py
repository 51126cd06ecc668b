"""Tokens that nobody was given, with a digest that is right, since anyone can make it."""

from __future__ import annotations

from base64 import urlsafe_b64encode

import pytest
from eventbroker.v1 import event_store_service_pb2 as pb
from eventbroker_server.domain.errors import Violation
from eventbroker_server.rpc import pages
from eventbroker_server.rpc.pages import place_of, token_of


@pytest.mark.parametrize(
    "place", [(-1, "a"), (1 << 63, "a"), (True, "a"), (1, "a\0"), (1, "\ud800"), (1,), (1, "a", 2)]
)
def test_a_token_whose_place_cannot_be_is_a_violation(place: tuple[int | str, ...]) -> None:
    request = pb.ListEventsRequest(tenant_id="acme")
    request.page_token = token_of(request, *place)
    violations: list[Violation] = []
    assert place_of(request, violations, int, str) is None
    assert [each.field for each in violations] == ["page_token"]


def test_a_place_comes_back_as_it_was() -> None:
    request = pb.ListEventsRequest(tenant_id="acme")
    request.page_token = token_of(request, (1 << 63) - 1, "ü")
    assert place_of(request, [], int, str) == [(1 << 63) - 1, "ü"]


def test_a_token_of_a_thousand_lists_in_one_another_is_a_violation() -> None:
    request = pb.ListEventsRequest(tenant_id="acme")
    deep = b"[" * 100_000
    raw = pages._digest(request, deep) + deep
    request.page_token = urlsafe_b64encode(raw).decode()
    violations: list[Violation] = []
    assert place_of(request, violations, int) is None
    assert [each.field for each in violations] == ["page_token"]
