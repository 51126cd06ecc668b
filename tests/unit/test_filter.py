from __future__ import annotations

import pytest
from eventbroker_server.domain.filter import TypeFilter
from hypothesis import given
from hypothesis import strategies as st

_types = st.lists(st.sampled_from(["a", "b", "ab"]), min_size=1, max_size=4).map(".".join)
_patterns = st.just("*") | _types | _types.map("{}.*".format)


def naively_matches(pattern: str, event_type: str) -> bool:
    if pattern == "*":
        return True
    levels, wanted = event_type.split("."), pattern.split(".")
    if wanted[-1] == "*":
        return len(levels) >= len(wanted) and levels[: len(wanted) - 1] == wanted[:-1]
    return levels == wanted


@pytest.mark.parametrize("event_type", ["user.created", "user.mail.changed", "user.x.y.z"])
def test_a_wildcard_matches_everything_below_its_level(event_type: str) -> None:
    assert TypeFilter.of("user.*").matches(event_type)


@pytest.mark.parametrize("event_type", ["user", "users.created", "role.user.created", "use.r"])
def test_a_wildcard_matches_neither_its_own_level_nor_a_longer_word(event_type: str) -> None:
    assert not TypeFilter.of("user.*").matches(event_type)


def test_a_filter_without_patterns_matches_all() -> None:
    assert TypeFilter.of() == TypeFilter.of("*")
    assert TypeFilter.of().matches("user.created")


def test_the_order_and_repetition_of_patterns_do_not_matter() -> None:
    assert TypeFilter.of("a", "b.*") == TypeFilter.of("b.*", "a", "a")
    assert str(TypeFilter.of("b.*", "a")) == "a,b.*"


@given(st.lists(_patterns, min_size=1, max_size=4), _types)
def test_a_filter_agrees_with_the_naive_reading_of_its_patterns(patterns: list[str], event_type: str) -> None:
    assert TypeFilter.of(*patterns).matches(event_type) == any(naively_matches(p, event_type) for p in patterns)


@given(st.lists(_patterns, min_size=1, max_size=4), _types)
def test_exact_types_and_prefixes_say_the_same_as_the_filter(patterns: list[str], event_type: str) -> None:
    wanted = TypeFilter.of(*patterns)
    told = event_type in wanted.exact() or event_type.startswith(tuple(wanted.prefixes()))
    assert told == wanted.matches(event_type)
