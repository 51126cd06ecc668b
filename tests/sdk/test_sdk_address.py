"""Where the broker is."""

from __future__ import annotations

import pytest
from eventbroker_client.connection.address import VARIABLE, address_of, metadata_of


@pytest.mark.parametrize(
    ("given", "target", "secure"),
    [
        ("127.0.0.1:50051", "127.0.0.1:50051", False),
        ("grpc://broker:50051/", "broker:50051", False),
        ("grpcs://broker:50051", "broker:50051", True),
        ("dns:///broker:50051", "dns:///broker:50051", False),
        ("unix:///run/broker", "unix:///run/broker", False),
    ],
)
def test_a_target_says_where_and_how(given: str, target: str, secure: bool) -> None:
    address = address_of(given)
    assert (address.target, address.credentials is not None) == (target, secure)


def test_tls_may_be_asked_for_beside_the_target() -> None:
    assert address_of("broker:50051", tls=True).credentials is not None


@pytest.mark.parametrize(("given", "tls"), [("grpc://broker:1", True), ("grpcs://broker:1", False)])
def test_a_target_that_contradicts_tls_is_refused(given: str, tls: bool) -> None:
    with pytest.raises(ValueError, match="contradict"):
        address_of(given, tls)


def test_without_a_target_the_environment_names_it() -> None:
    assert address_of(None, environ={VARIABLE: "grpc://broker:1"}).target == "broker:1"
    with pytest.raises(ValueError, match=VARIABLE):
        address_of(None, environ={})


def test_a_token_goes_with_every_call_and_may_be_renewed() -> None:
    tokens = iter(["a", "b"])
    assert metadata_of(None) == ()
    assert metadata_of("secret") == (("authorization", "Bearer secret"),)
    assert [metadata_of(lambda: next(tokens))[0][1] for _ in range(2)] == ["Bearer a", "Bearer b"]
