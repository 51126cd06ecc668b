from __future__ import annotations

import base64

import pytest
from eventbroker_server.domain.ack_id import AckId, Lane, Signer, head_of
from hypothesis import given
from hypothesis import strategies as st

SIGNER = Signer(b"k" * 32)
_parts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
_lanes = st.builds(Lane, _parts, st.integers(0, 10_000), st.integers(0, 2**40), _parts, _parts)

# Three lengths, so that base64 ends in each of its three ways.
TOKENS = [
    SIGNER.sign(head_of(Lane("acme:billing", 3, 7, "user.created", consumer)), 12345, 2)
    for consumer in ("c", "cc", "ccc")
]
each_token = pytest.mark.parametrize("token", TOKENS, ids=["one", "two", "three"])


@given(_lanes, st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1))
def test_a_token_says_what_was_signed(lane: Lane, position: int, number: int) -> None:
    assert SIGNER.verify(SIGNER.sign(head_of(lane), position, number)) == AckId(lane, position, number)


@given(_lanes, st.binary(min_size=1, max_size=25))
def test_a_token_of_another_key_is_unknown(lane: Lane, key: bytes) -> None:
    assert Signer(b"another" + key).verify(SIGNER.sign(head_of(lane), 1, 1)) is None


@each_token
def test_a_token_with_any_bit_of_its_text_flipped_is_unknown(token: str) -> None:
    flipped = [
        token[:at] + chr(ord(token[at]) ^ (1 << bit)) + token[at + 1 :] for at in range(len(token)) for bit in range(8)
    ]
    assert [text for text in flipped if SIGNER.verify(text) is not None] == []


@each_token
def test_a_token_with_any_bit_of_its_bytes_flipped_is_unknown(token: str) -> None:
    raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    for bit in range(8 * len(raw)):
        flipped = (int.from_bytes(raw, "big") ^ (1 << bit)).to_bytes(len(raw), "big")
        assert SIGNER.verify(base64.urlsafe_b64encode(flipped).rstrip(b"=").decode()) is None


@each_token
def test_a_truncated_token_is_unknown(token: str) -> None:
    parts = [token[:end] for end in range(len(token))] + [token[start:] for start in range(1, len(token))]
    assert [text for text in parts if SIGNER.verify(text) is not None] == []


@each_token
@pytest.mark.parametrize("more", ["=", "A", "AAAA", "\n", " ", "\0", "é"])
def test_a_token_with_something_added_is_unknown(token: str, more: str) -> None:
    assert SIGNER.verify(token + more) is None
    assert SIGNER.verify(more + token) is None


@given(st.text() | st.text("ABCabc012-_=") | st.binary().map(lambda raw: base64.urlsafe_b64encode(raw).decode()))
def test_garbage_is_unknown(text: str) -> None:
    assert SIGNER.verify(text) is None
