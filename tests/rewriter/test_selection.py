"""From what a site has seen to its domain, its guard and its expression."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from odp.approximations import ApproximationError, Interval
from odp.passes import registry
from odp.rewriter.calibration import Observation
from odp.rewriter.onnx_graph import OnnxGraph
from odp.rewriter.pass_options import parse_passes
from odp.rewriter.selection import (
    SOFTMAX_CUTOFF,
    Approximating,
    Defaults,
    Selection,
    check_options,
    domain_of,
    mask_value_for,
    select,
)
from odp.rewriter.site import EVERYWHERE, Request, Site

Graphs = Callable[..., OnnxGraph]


def site(passes: str = "exp", function: str | None = None, **options: Any) -> Site:
    """A site of the first of `passes`."""
    rewrite = parse_passes(passes, registry())[0]
    fields = {
        "id": f"{rewrite.name}/1",
        "request": Request(rewrite, rewrite.name, None, tuple(rewrite.patterns)),
        "pattern": rewrite.name,
        "function": function or rewrite.name,
        "hint": EVERYWHERE,
        "cover": None,
        "maskable": False,
        "masks_finite": False,
        "summed": 1,
        "node": "node_7",
        "module_path": "",
        "graph_path": "",
    }
    return Site(**(fields | options))


def seen(*values: float, maskable: bool = False) -> Observation:
    observation = Observation()
    observation.add(np.array(values), maskable)
    return observation


def chosen(place: Site, observation: Observation, **defaults: Any) -> Selection:
    return select({place.id: place}, {place.id: observation}, Defaults(**defaults))


SOFTMAX = {"hint": Interval(-math.inf, 0.0), "maskable": True}


# Domains


def test_what_was_seen_lies_inside_with_the_margin_on_both_sides() -> None:
    domain = domain_of(site(), seen(-1.0, 3.0), Defaults(margin=0.25))
    assert domain.contains_interval(Interval(-2.0, 4.0))
    # Rounded outwards to four significant bits, so never more than 1/8 further.
    assert domain.lo >= -2.25 and domain.hi <= 4.5


@pytest.mark.parametrize("margin", [0.0, 0.5, 2.0])
def test_the_margin_is_an_option_of_the_run_and_of_the_pass(margin: float) -> None:
    wanted = domain_of(site(), seen(-8.0, 8.0), Defaults(margin=margin))
    assert wanted.hi == pytest.approx(8.0 + 16.0 * margin, rel=1 / 8)
    assert domain_of(site(f"exp{{margin={margin}}}"), seen(-8.0, 8.0), Defaults()) == wanted


@pytest.mark.parametrize("function", ["tanh", "erf", "sin", "cos", "sigmoid"])
def test_symmetric_functions_get_symmetric_domains(function: str) -> None:
    domain = domain_of(site(function), seen(-0.5, 2.0), Defaults())
    assert domain.lo == -domain.hi and domain.hi >= 2.0


@pytest.mark.parametrize("function", ["sqrt", "rsqrt", "log"])
def test_positive_scales_are_widened_by_octaves(function: str) -> None:
    domain = domain_of(site(function), seen(0.01, 1.0), Defaults(margin=0.25))
    octaves = 0.25 * math.log2(100.0)
    assert domain.lo == pytest.approx(0.01 * 2**-octaves, rel=1 / 8)
    assert domain.hi == pytest.approx(2**octaves, rel=1 / 8)
    # One value alone says nothing about the ends: at least an octave on each side.
    domain = domain_of(site(function), seen(1.0), Defaults(margin=0.0))
    assert domain.lo <= 0.5 and domain.hi >= 2.0


def test_a_positive_scale_that_touched_zero_ends_forty_octaves_down() -> None:
    domain = domain_of(site("sqrt", hint=Interval(0.0, math.inf)), seen(0.0, 4.0), Defaults())
    assert 0.0 < domain.lo <= domain.hi * 2.0**-40


def test_the_hint_of_the_mathematics_bounds_the_domain() -> None:
    place = site("rsqrt", hint=Interval(1e-5, math.inf))
    assert domain_of(place, seen(2e-5, 1.0), Defaults()).lo == 1e-5
    place = site(hint=Interval(-math.inf, 0.0))
    assert domain_of(place, seen(-5.0, -0.1), Defaults()).hi == 0.0


@pytest.mark.parametrize(
    ("function", "values"), [("asin", (-0.99, 0.99)), ("acosh", (1.0, 2.0)), ("atanh", (-0.9, 0.9))]
)
def test_the_natural_domain_bounds_the_domain(function: str, values: tuple[float, ...]) -> None:
    from odp.approximations import get_function

    domain = domain_of(site(function), seen(*values), Defaults(margin=1.0))
    assert get_function(function).domain.contains_interval(domain)


def test_a_domain_that_was_typed_is_taken() -> None:
    assert domain_of(site("exp{domain=-7:2}"), seen(-100.0, 100.0), Defaults()) == Interval(-7, 2)


@pytest.mark.parametrize("function", ["sigmoid", "tanh", "erf"])
def test_saturated_ends_are_cut_off_by_a_clip_but_not_without_one(function: str) -> None:
    clipped = domain_of(site(function), seen(-300.0, 300.0), Defaults(guard="clip"))
    assert clipped.hi < 40.0
    from odp.approximations import get_function

    # What the clip changes is far below the budget.
    values = get_function(function).numpy(np.array([clipped.hi, 300.0]))
    assert abs(values[0] - values[1]) <= 1e-5 / 4
    assert domain_of(site(function), seen(-300.0, 300.0), Defaults(guard="none")).hi >= 300.0


def test_periodic_and_growing_functions_do_not_saturate() -> None:
    for function in ("sin", "cos", "exp"):
        assert domain_of(site(function), seen(-50.0, 50.0), Defaults()).hi >= 50.0


def test_a_guarded_softmax_ends_where_float32_stops_seeing() -> None:
    place = site("softmax", "exp", **SOFTMAX)
    for observation in (seen(-200.0, 0.0, maskable=True), seen(-1.0, 0.0), Observation()):
        assert domain_of(place, observation, Defaults()) == Interval(SOFTMAX_CUTOFF, 0.0)


def test_an_unguarded_softmax_covers_its_masks() -> None:
    place = site("softmax{guard=none}", "exp", **SOFTMAX)
    observation = seen(-9.0, 0.0, -1e4, maskable=True)
    plain = domain_of(place, observation, Defaults())
    assert Interval(-16.0, 0.0).contains_interval(plain)
    masked = domain_of(place, observation, Defaults(), mask_value=-128.0)
    assert masked.lo <= -128.0 - 9.0 and masked.hi == 0.0


def test_what_must_be_covered_is_covered() -> None:
    place = site("sin", cover=Interval(0.0, 100.0))
    assert domain_of(place, Observation(), Defaults()) == Interval(0.0, 100.0)
    domain = domain_of(place, seen(-1.0, 5.0), Defaults())
    assert domain.contains_interval(Interval(-1.0, 100.0))


def test_a_site_that_was_never_reached_asks_for_a_domain() -> None:
    with pytest.raises(ApproximationError, match=r"node_7.*exp\{domain=lo:hi\}"):
        domain_of(site(), Observation(), Defaults())
    bounded = site(hint=Interval(-3.0, 0.0))
    assert domain_of(bounded, Observation(), Defaults()) == Interval(-3.0, 0.0)


@pytest.mark.parametrize("value", [0.0, 1.0, -2.5, 1e-30, 1e30])
@pytest.mark.parametrize("function", ["exp", "tanh", "sin"])
def test_a_constant_input_has_a_domain_of_some_width(value: float, function: str) -> None:
    domain = domain_of(site(function), seen(value), Defaults(margin=0.0, guard="none"))
    assert domain.lo < domain.hi and domain.contains(value)


def test_sites_that_differ_little_share_an_approximant() -> None:
    places = {f"{i}": site(id=f"{i}") for i in range(3)}
    ranges = [(-5.1, 5.1), (-5.11, 5.12), (-5.09, 5.1)]
    observations = {f"{i}": seen(*values) for i, values in enumerate(ranges)}
    selection = select(places, observations, Defaults())
    assert len({choice.approximant for choice in selection.choices.values()}) == 1


# Masks


def test_the_mask_value_is_a_power_of_two_below_every_score() -> None:
    places = {
        "1": site("softmax", "exp", id="1", **SOFTMAX),
        "2": site("softmax", "exp", id="2", **SOFTMAX),
    }
    both = {"1": seen(-20.0, 0.0, -1e4, maskable=True), "2": seen(-50.0, 0.0, maskable=True)}
    value = mask_value_for(places, both)
    # Scores may differ by 20 either way; 32 below the lowest, a mask is invisible.
    assert value is not None
    assert value <= -(20.0 + 20.0) + SOFTMAX_CUTOFF
    assert math.log2(-value).is_integer()
    assert mask_value_for(places, {"1": both["2"], "2": both["2"]}) is None
    assert mask_value_for({"1": site(id="1")}, {"1": seen(-1e9)}) is None


# Guards


def bounds(selection: Selection) -> Sequence[float | None]:
    (choice,) = selection.choices.values()
    return choice.low, choice.high


def test_a_clip_has_the_bounds_of_the_domain() -> None:
    selection = chosen(site(), seen(-4.0, 1.0))
    (choice,) = selection.choices.values()
    assert bounds(selection) == (choice.approximant.domain.lo, choice.approximant.domain.hi)
    assert choice.guard == "clip"


def test_no_clip_where_mathematics_keeps_inputs_inside() -> None:
    assert bounds(chosen(site("rsqrt", hint=Interval(1e-3, math.inf)), seen(1e-3, 1.0)))[0] is None
    place = site(hint=Interval(-math.inf, 0.0))
    assert bounds(chosen(place, seen(-4.0, 0.0)))[1] is None


def test_no_guard_no_clip() -> None:
    selection = chosen(site(), seen(-4.0, 1.0), guard="none")
    assert bounds(selection) == (None, None)
    assert bounds(chosen(site("exp{guard=none}"), seen(-4.0, 1.0))) == (None, None)
    low, high = bounds(chosen(site("exp{guard=clip}"), seen(-4.0, 1.0), guard="none"))
    assert low is not None and high is not None


def test_a_softmax_is_clipped_from_below_whatever_the_expression() -> None:
    assert bounds(chosen(site("softmax", "exp", **SOFTMAX), seen(-1.0, 0.0))) == (-32.0, None)


def test_masks_are_clipped_even_without_a_guard_unless_they_became_finite(graph_of: Graphs) -> None:
    def clips(finite: bool) -> int:
        place = site("softmax{guard=none}", "exp", **(SOFTMAX | {"masks_finite": finite}))
        selection = chosen(place, seen(-9.0, 0.0, -1e4, maskable=True))
        graph = graph_of("(float[2] x) => (float[2] y) { y = Exp(x) }")
        node = next(graph.nodes())
        assert node.inputs[0] is not None
        result = Approximating(selection).function(place, node.inputs[0], graph.builder(node, {}))
        graph.replace(node.output, result)
        return graph.operations().get("Clip", 0)

    assert clips(finite=False) == 1
    assert clips(finite=True) == 0


# Budgets


def test_the_error_is_kept() -> None:
    for error in (1e-3, 1e-5):
        (choice,) = chosen(site(), seen(-4.0, 0.0), error=error).choices.values()
        assert choice.approximant.absolute_error <= error
        (choice,) = chosen(site(f"exp{{error={error}}}"), seen(-4.0, 0.0)).choices.values()
        assert choice.approximant.absolute_error <= error


def test_exp_is_relative_above_one_and_absolute_below() -> None:
    (above,) = chosen(site(), seen(-1.0, 6.0)).choices.values()
    (below,) = chosen(site(hint=Interval(-math.inf, 0.0)), seen(-6.0, 0.0)).choices.values()
    assert above.approximant.relative and not below.approximant.relative
    (typed,) = chosen(site("exp{relative=false}"), seen(-1.0, 6.0)).choices.values()
    assert not typed.approximant.relative


def test_a_long_sum_gets_a_smaller_budget() -> None:
    short = chosen(site("softmax", "exp", **SOFTMAX), seen(-9.0, 0.0))
    long = chosen(site("softmax", "exp", summed=160, **SOFTMAX), seen(-9.0, 0.0))
    assert short.choices["softmax/1"].approximant.absolute_error > 1e-6
    assert long.choices["softmax/1"].approximant.absolute_error <= 1e-6


def test_a_default_budget_is_relaxed_with_a_warning() -> None:
    selection = chosen(site("tan"), seen(-1.5, 1.5), error=1e-9, margin=0.0)
    assert selection.choices
    (warning,) = selection.warnings
    assert "tan/1" in warning and "1e-09 is out of reach" in warning


def test_a_budget_that_was_typed_is_not_relaxed() -> None:
    selection = chosen(site("tan{error=1e-9}"), seen(-1.5, 1.5), margin=0.0)
    assert not selection.choices and not selection.warnings
    skipped = selection.skipped["tan/1"]
    assert (skipped.node, skipped.op) == ("node_7", "tan")
    assert "no expression reaches" in skipped.reason


@pytest.mark.parametrize("function", ["log", "acosh"])
def test_data_outside_the_natural_domain_leaves_the_site_native(function: str) -> None:
    selection = chosen(site(function), seen(-5.0, -3.0))
    assert not selection.choices
    assert selection.skipped[f"{function}/1"].reason


def test_parameters_that_were_typed_are_taken_at_their_word() -> None:
    (choice,) = chosen(site("exp{scheme=chebyshev,degree=3}"), seen(-4.0, 0.0)).choices.values()
    assert choice.approximant.parameters["degree"] == 3
    assert choice.approximant.absolute_error > 1e-5


def test_a_disabled_pass_stays_native(graph_of: Graphs) -> None:
    place = site()
    selection = chosen(place, seen(-4.0, 0.0))
    for enabled, expected in ((None, False), ({"exp"}, False), ({"log"}, True), (set(), True)):
        graph = graph_of("(float[2] x) => (float[2] y) { y = Tanh(x) }")
        node = next(graph.nodes())
        assert node.inputs[0] is not None
        emit = Approximating(selection, enabled).function
        graph.replace(node.output, emit(place, node.inputs[0], graph.builder(node, {})))
        assert ("Exp" in graph.operations()) == expected


@pytest.mark.parametrize(
    ("passes", "says"),
    [
        ("exp{scheme=chebishev}", "did you mean chebyshev"),
        ("exp{degree=3}", "needs a scheme"),
        ("exp{scheme=newton,squarings=3}", "no parameter 'squarings'"),
    ],
)
def test_options_that_no_scheme_understands(passes: str, says: str) -> None:
    with pytest.raises(ApproximationError, match=says):
        check_options(parse_passes(passes, registry())[0])


@pytest.mark.parametrize("error", [0.0, -1e-5, math.nan, math.inf])
def test_an_error_that_is_no_positive_number(error: float) -> None:
    with pytest.raises(ApproximationError, match="error must be a positive number"):
        Defaults(error=error)


@pytest.mark.parametrize("margin", [-0.1, math.nan, math.inf])
def test_a_margin_that_is_negative(margin: float) -> None:
    with pytest.raises(ApproximationError, match="margin must be zero or a positive number"):
        Defaults(margin=margin)


# Weights


def test_a_weighted_pass_spends_less_where_few_inputs_are() -> None:
    inputs = seen(*np.random.default_rng(5).normal(0.0, 0.7, 20_000), -9.0, 9.0)
    cost = {}
    for passes in ("sigmoid", "sigmoid{weighted=true}"):
        place = site(passes)
        approximant = chosen(place, inputs, error=1e-5).choices[place.id].approximant
        cost[passes] = approximant.target.cost(approximant.counts)
        x = np.linspace(-2.0, 2.0, 4001)
        error = np.abs(approximant(x) - approximant.function.numpy(x))
        # Ten times the budget is allowed where the histogram is empty, and declared.
        assert error.max() <= approximant.absolute_error * 1.001 <= 1.02e-4
    assert cost["sigmoid{weighted=true}"] <= cost["sigmoid"]
