"""Functions made of others, and logarithms of split arguments."""

from collections.abc import Callable

import pytest

from odp.approximations import SCHEMES, Approximant, Interval, approximate, get_function


@pytest.mark.parametrize(
    "name, domain",
    [
        ("silu", (-10, 10)),
        ("silu", (-60, 60)),
        ("gelu", (-6, 6)),
        ("tanh", (-4, 4)),
        ("erf", (-6, 6)),
        ("normal_cdf", (-6, 6)),
        ("cosh", (-5, 5)),
        ("sinh", (-3, 3)),
    ],
)
def test_functions_of_a_part(
    name: str, domain: tuple[float, float], check: Callable[[Approximant], None]
) -> None:
    approximant = approximate(name, domain, error=1e-3, scheme="structural")
    assert approximant.scheme == "structural"
    assert approximant.error <= 1e-3
    assert approximant.error_kind == "certified"
    check(approximant)


@pytest.mark.parametrize("name", ["silu", "gelu"])
def test_a_product_with_x_vanishes_at_zero(name: str) -> None:
    assert approximate(name, (-6, 6), error=1e-2, scheme="structural")(0.0) == 0.0


def test_a_wide_silu_is_a_product() -> None:
    # An even remainder that is right at 60 takes more than a gate that is 1 or 0 there.
    assert approximate("silu", (-60, 60), error=1e-4).scheme == "structural"
    assert approximate("silu", (-6, 6), error=1e-4).scheme != "structural"


@pytest.mark.parametrize(
    "by, value",
    [
        ("exp", {"spread": 0.7}),
        ("exp", {"spread": 2.0}),
        ("root", {"root": 2}),
        ("root", {"root": 4}),
    ],
)
def test_both_ways_to_split_a_logarithm(
    by: str, value: dict[str, float], check: Callable[[Approximant], None]
) -> None:
    approximant = approximate("log", (1e-4, 1e3), error=1e-3, scheme="splitting", by=by, **value)  # type: ignore[arg-type]
    assert approximant.parameters["by"] == by
    assert approximant.error <= 1e-3
    assert approximant.error_kind == "certified"
    check(approximant)


@pytest.mark.parametrize("domain", [(1e-6, 1e6), (1e-12, 1e3)])
def test_over_many_decades_splitting_beats_halley(domain: tuple[float, float]) -> None:
    split = approximate("log", domain, error=1e-5)
    halley = approximate("log", domain, error=1e-5, scheme="halley")
    assert split.scheme == "splitting"
    assert split.error_kind == "certified"
    assert split.counts.multiplications < halley.counts.multiplications
    assert split.counts.divisions <= halley.counts.divisions


def test_narrow_domains_are_not_split() -> None:
    assert not SCHEMES["splitting"].applies(get_function("log"), Interval(0.5, 2.0))
