"""What is settled beyond a checkpoint, as ranges."""

from __future__ import annotations

from itertools import pairwise

import pytest
from eventbroker_server.ports import Progress, Saved
from hypothesis import given
from hypothesis import strategies as st

positions = st.integers(0, 40)


@given(settled=positions, through=positions, but=st.lists(positions))
def test_ranges_hold_what_is_settled_up_to_there_and_nothing_else(settled: int, through: int, but: list[int]) -> None:
    ranges = Progress(50, settled, None, through, tuple(sorted(but))).beyond()
    told = [position for first, after in ranges for position in range(first, after)]
    assert told == [position for position in range(settled + 1, through + 1) if position not in but]
    assert all(after < first for (_, after), (first, _) in pairwise(ranges))


@pytest.mark.parametrize(
    ("settled", "but", "ahead"),
    [(4, (), False), (3, (), True), (4, (5, 9), False), (4, (6,), True), (4, (8,), True)],
)
def test_who_knows_something_settled_that_is_not_is_ahead(settled: int, but: tuple[int, ...], ahead: bool) -> None:
    assert Saved(4, [(6, 9)]).is_ahead_of(Progress(20, settled, None, 20, but)) == ahead
