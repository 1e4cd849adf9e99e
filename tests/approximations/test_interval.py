"""Intervals: reading, printing, and what they contain."""

import math
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from odp.approximations import ApproximationError, Interval

bounds = st.floats(allow_nan=False)


@given(bounds, bounds)
def test_every_interval_reads_back_from_its_printed_form(a: float, b: float) -> None:
    interval = Interval(min(a, b), max(a, b))
    assert Interval.parse(str(interval)) == interval
    assert Interval.parse(f"{interval.lo!r}:{interval.hi!r}") == interval
    assert pickle.loads(pickle.dumps(interval)) == interval


@given(st.text(max_size=12))
def test_any_text_is_an_interval_or_one_clear_line(text: str) -> None:
    try:
        interval = Interval.parse(text)
    except ApproximationError as error:
        assert "\n" not in str(error).replace(repr(text), "")
    else:
        assert interval.lo <= interval.hi


@pytest.mark.parametrize("text", ["", "1", "1:2:3", "a:b", "2:1", "nan:1", "0:nan", "[1;2]"])
def test_bad_text_is_refused(text: str) -> None:
    with pytest.raises(ApproximationError):
        Interval.parse(text)


def test_printing_is_short() -> None:
    assert str(Interval(-10, 0)) == "[-10, 0]"
    assert str(Interval(-0.0, 0.5)) == "[0, 0.5]"
    assert str(Interval(-math.inf, 1e-6)) == "[-inf, 1e-06]"


def test_measures() -> None:
    assert Interval(-3, 1).width == 4
    assert Interval(-3, 1).magnitude == 3
    assert Interval(-3, 1).ratio == math.inf
    assert Interval(-8, -2).ratio == 4
    assert Interval(1, math.inf).ratio == math.inf
    assert Interval(2, 2).width == 0
    assert Interval(math.inf, math.inf).width == 0
    assert not Interval(0, math.inf).is_finite


@given(bounds, bounds, bounds)
def test_containment(a: float, b: float, x: float) -> None:
    interval = Interval(min(a, b), max(a, b))
    assert interval.contains(x) == (min(a, b) <= x <= max(a, b))
    assert Interval(-math.inf, math.inf).contains_interval(interval)
    assert interval.contains_interval(interval)


@pytest.mark.parametrize("lo, hi", [(1, 0), (math.nan, 1), (0, math.nan), ("a", 1), (None, 1)])
def test_bad_bounds_are_refused(lo: object, hi: object) -> None:
    with pytest.raises(ApproximationError):
        Interval(lo, hi)  # type: ignore[arg-type]
