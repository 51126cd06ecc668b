from __future__ import annotations

import pytest
from eventbroker_server.domain.names import has_control_characters, is_event_type, is_id, is_name, is_type_pattern


@pytest.mark.parametrize("text", ["a", "Acme-1.prod_eu", "v1.0", ".", "x" * 128])
def test_a_name_is_short_and_of_safe_characters(text: str) -> None:
    assert is_name(text)


@pytest.mark.parametrize("text", ["", "x" * 129, "a b", "a\n", "a:b", "a*", "é", "{0}", "a/b", "~", "a\0"])
def test_anything_else_is_no_name(text: str) -> None:
    assert not is_name(text)


@pytest.mark.parametrize("text", ["user", "user.created", "a_b-1.c", "a.b.c.d.e.f.g.h", "x" * 128])
def test_an_event_type_is_up_to_eight_levels_of_lower_case(text: str) -> None:
    assert is_event_type(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "user.",
        ".user",
        "a..b",
        "User.created",
        "a.b.c.d.e.f.g.h.i",
        "x" * 129,
        "user.*",
        "*",
        "a\n",
        "é",
        "a,b",
    ],
)
def test_anything_else_is_no_event_type(text: str) -> None:
    assert not is_event_type(text)


@pytest.mark.parametrize("text", ["*", "user.created", "user.*", "user.mail.*", "a.b.c.d.e.f.g.h.*"])
def test_a_pattern_is_a_type_or_ends_in_a_wildcard_level(text: str) -> None:
    assert is_type_pattern(text)


@pytest.mark.parametrize(
    "text", ["", ".*", "**", "*.*", "*.created", "user*", "user.*.mail", "user.*.*", "User.*", "user.?"]
)
def test_anything_else_is_no_pattern(text: str) -> None:
    assert not is_type_pattern(text)


@pytest.mark.parametrize("text", ["1", "user 7", "a/b:c", "müller-🙂", "🙂" * 256, "\u2028", " "])
def test_an_id_is_any_text_without_control_characters(text: str) -> None:
    assert is_id(text)


@pytest.mark.parametrize("text", ["", "x" * 257, "a\0b", "a\n", "\x1f", "\x7f", "\x80", "\x9f"])
def test_anything_else_is_no_id(text: str) -> None:
    assert not is_id(text)


def test_control_characters_are_the_two_ranges_of_latin_1() -> None:
    control = [*range(0x20), *range(0x7F, 0xA0)]
    assert [code for code in range(0x3000) if has_control_characters(f"a{chr(code)}b")] == control
