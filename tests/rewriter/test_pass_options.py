"""Every option of every pass, typed and read back."""

from __future__ import annotations

import typing
from dataclasses import fields
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from odp.approximations import Interval
from odp.passes import registry
from odp.rewriter.pass_options import PassOptionError, named_passes, nearest, parse_passes
from odp.rewriter.rewrite_pass import COMPOSITE, ELEMENTARY, EXPANSION, Pass

TEXTS: dict[type, dict[str, Any]] = {
    float: {"0.5": 0.5, "1e-6": 1e-6, "3": 3.0},
    int: {"3": 3, "12": 12},
    bool: {"true": True, "false": False, "True": True},
    str: {"newton": "newton"},
    Interval: {"-4:4": Interval(-4, 4), "1e-3:inf": Interval(1e-3, float("inf"))},
}


def kind_of(name: str, option: str) -> Any:
    hint = typing.get_type_hints(registry()[name])[option]
    kinds = [kind for kind in typing.get_args(hint) or (hint,) if kind is not type(None)]
    return kinds[0]


def texts_of(name: str, option: str) -> dict[str, Any]:
    kind = kind_of(name, option)
    if typing.get_origin(kind) is Literal:
        return {choice: choice for choice in typing.get_args(kind)}
    return TEXTS[kind]


@pytest.mark.parametrize("name", registry())
def test_every_option_makes_the_round_trip(name: str) -> None:
    for option in (field.name for field in fields(registry()[name])):
        for text, value in texts_of(name, option).items():
            (rewrite,) = parse_passes(f"{name}{{{option}={text}}}", registry())
            assert type(rewrite) is registry()[name]
            assert getattr(rewrite, option) == value
            assert type(getattr(rewrite, option)) is type(value)
            # What the report shows can be typed again, but for the comma of an interval.
            shown = str(rewrite.options()[option]).replace(", ", ":")
            assert parse_passes(f"{name}{{{option}={shown}}}", registry()) == [rewrite]


@pytest.mark.parametrize("name", registry())
def test_rubbish_is_refused_by_name(name: str) -> None:
    for option in (field.name for field in fields(registry()[name])):
        if kind_of(name, option) is str:
            continue  # any text is a text; what it may be, the scheme says
        with pytest.raises(PassOptionError, match=f"option '{option}' of pass '{name}'"):
            parse_passes(f"{name}{{{option}=rubbish}}", registry())


@pytest.mark.parametrize("name", registry())
def test_a_pass_is_documented_and_declared(name: str) -> None:
    kind = registry()[name]
    assert kind.__module__ == f"odp.passes.{name}" or kind.__module__.startswith("odp.passes.")
    assert kind.stage in (EXPANSION, COMPOSITE, ELEMENTARY)
    assert kind.summary().endswith(".")
    assert set(kind.parts) <= set(kind.patterns) and kind.patterns
    assert kind.anchors
    rewrite = kind()
    assert rewrite.options() == {}
    with pytest.raises(AttributeError):
        rewrite.error = 1.0  # type: ignore[misc]
    roots = frozenset().union(*(pattern.roots() for pattern in kind.patterns.values()))
    assert roots, "a pattern that can start anywhere would be tried nowhere"


@pytest.mark.parametrize("name", registry())
def test_parts_are_functions_that_can_be_typed(name: str) -> None:
    for parts in registry()[name].parts.values():
        assert set(parts) <= set(registry()), parts


def test_names_in_the_order_typed() -> None:
    assert [p.name for p in parse_passes("rope, exp ,rsqrt", registry())] == [
        "rope",
        "exp",
        "rsqrt",
    ]


def test_dashes_are_underscores() -> None:
    (rewrite,) = parse_passes("layer-norm{error=1e-3}", registry())
    assert rewrite.name == "layer_norm"


def test_all_is_every_pass_that_can_do_without_a_division_pass() -> None:
    names = [rewrite.name for rewrite in parse_passes("all", registry())]
    assert names == [name for name, kind in registry().items() if kind.in_all]
    assert "reciprocal" not in names and "softmax" in names


@pytest.mark.parametrize(
    "text", ["all{error=1e-3},exp{error=1e-7}", "exp{error=1e-7},all{error=1e-3}"]
)
def test_a_pass_that_is_named_wins_over_all(text: str) -> None:
    passes = {rewrite.name: rewrite for rewrite in parse_passes(text, registry())}
    assert passes["exp"].error == 1e-7
    assert passes["log"].error == 1e-3
    assert named_passes(text) == {"exp"}


def test_spaces_do_not_matter() -> None:
    spaced = parse_passes("  exp { error = 1e-3 , scheme = pade } ,  log ", registry())
    assert spaced == parse_passes("exp{error=1e-3,scheme=pade},log", registry())


@pytest.mark.parametrize(
    "formula",
    [
        "(1+x/8)**8",
        "( 1 + x/8 ) ^ 8",
        "y=2/(1+x); y=y*(1.5-0.5*x*y*y); y",
        "y = 2/(1+x);y = y*(1.5-0.5*x*y*y)",
        "x-1e-3*x**3",
    ],
)
def test_a_formula_keeps_its_signs(formula: str) -> None:
    text = f"log, rsqrt{{error=1e-3, formula={formula} ,guard=none}},exp{{formula={formula}}}"
    log, rsqrt, exp = parse_passes(text, registry())
    assert (log.formula, rsqrt.formula, exp.formula) == (None, formula, formula)
    assert (rsqrt.error, rsqrt.guard) == (1e-3, "none")
    assert rsqrt.options() == {"error": 1e-3, "formula": formula, "guard": "none"}
    assert parse_passes(f"exp{{formula={exp.options()['formula']}}}", registry()) == [exp]


def test_a_formula_is_not_for_all() -> None:
    with pytest.raises(PassOptionError, match="stands for one function"):
        parse_passes("all{error=1e-3,formula=x}", registry())


def test_braces_without_options() -> None:
    assert parse_passes("exp{}", registry()) == parse_passes("exp", registry())


@pytest.mark.parametrize(
    ("name", "hint"),
    [("exq", ", did you mean 'exp'?"), ("EXP", ", did you mean 'exp'?"), ("zzzzz", "")],
)
def test_the_nearest_name(name: str, hint: str) -> None:
    assert nearest(name, ["exp", "log"]) == hint


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=40) | st.text(alphabet="explogall{}=,:-.1e ", max_size=40))
def test_any_text_is_passes_or_one_line(text: str) -> None:
    try:
        passes = parse_passes(text, registry())
    except PassOptionError as error:
        assert str(error)
    else:
        assert passes and all(isinstance(rewrite, Pass) for rewrite in passes)
        assert len({rewrite.name for rewrite in passes}) == len(passes)
