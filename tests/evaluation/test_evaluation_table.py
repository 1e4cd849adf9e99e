"""The tables: everything is there, nothing is wider than the terminal, nobody's text is markup."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from odp.evaluation import render
from odp.evaluation.record import Evaluation

from .sample_evaluation import sample


def shown(evaluation: Evaluation, width: int, encoding: str = "utf-8") -> str:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    render(evaluation, Console(file=file, width=width))
    file.seek(0)
    return file.read()


@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_no_line_is_longer_than_the_terminal(width: int) -> None:
    assert max(len(line.rstrip()) for line in shown(sample(), width).splitlines()) <= width


@pytest.mark.parametrize("width", [80, 120])
def test_what_matters_is_there_at_every_width(width: int) -> None:
    text = shown(sample(), width)
    for expected in (
        "warning: one thing",
        "134,515,008 parameters, bfloat16 on cuda:0",
        "64 tokens every 32, each after a begin token, at most 1,000 tokens",
        "12.750 → 12.751 (+0.008 %)",
        "12.501  +0.010 %  2.5e-5",
        "99.16 %",
        "all texts",
        "not finite",
        "1,234   1.00    56.8   1.00",
        "What is [bold]gravity[/bold]?",
        "identical, 2 tokens",
        "differs from new token 1 on",
        "A »[farce].",
        "-0.1250",
        "n/a",
    ):
        assert expected in text, text


def test_a_wide_terminal_shows_more() -> None:
    narrow, wide = shown(sample(), 80), shown(sample(), 120)
    for header in ("max KL", "top-5", "top-10", "questions", "0.9570", "1 - 2.5e-7"):
        assert header not in narrow and header in wide
    assert "least" in shown(sample(), 160) and "least" not in wide


def test_a_narrow_terminal_shows_the_cosine_or_what_is_not_finite() -> None:
    sound = sample()
    sound.variants = sound.variants[:1]
    text = shown(sound, 80)
    assert "0.9570" in text and "1 - 2.5e-7" in text and "not finite" not in text


def test_what_was_not_measured_is_not_shown() -> None:
    bare = sample()
    bare.tasks, bare.generations, bare.warnings = [], [], []
    bare.variants = bare.variants[:1]
    for record in (bare.original, *bare.variants):
        record.speed = record.layer_errors = None
    text = shown(bare, 120)
    for header in ("Layers", "Tokens per second", "Tasks", "gravity", "warning", "not finite"):
        assert header not in text
    assert "Predictions" in text


def test_a_terminal_without_arrows() -> None:
    text = shown(sample(), 100, encoding="ascii")
    assert "12.750 -> 12.751" in text and text.isascii()
