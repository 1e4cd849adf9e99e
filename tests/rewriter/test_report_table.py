"""The terminal view: complete numbers at every width, loud warnings, graceful when empty."""

from __future__ import annotations

import importlib.util
import io
import math
from pathlib import Path
from types import ModuleType

import pytest
from rich.console import Console

from odp.rewriter.report import Metrics, ModelRecord, PassRecord, Report, Skipped
from odp.rewriter.report_summary import (
    approximants_by_key,
    format_cosine,
    format_error,
    format_share,
    group_sites,
    worst_error,
)
from odp.rewriter.report_table import (
    PassSummary,
    render,
    render_explanations,
    render_passes_list,
)


def load_sample() -> ModuleType:
    path = Path(__file__).with_name("sample_report.py")
    specification = importlib.util.spec_from_file_location("sample_report", path)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def report() -> Report:
    made: Report = load_sample().sample_report()
    return made


def printed(report: Report, width: int, encoding: str = "utf-8", ansi: bool = False) -> str:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True)
    console = Console(
        file=stream, width=width, force_terminal=ansi, color_system="standard" if ansi else None
    )
    render(report, console)
    stream.seek(0)
    return stream.read()


def rows_of(text: str, first: str) -> list[list[str]]:
    """Cells of the table rows that begin with `first`."""
    return [line.split() for line in text.splitlines() if line.split()[:1] == [first]]


@pytest.mark.parametrize("width", [80, 100, 160])
def test_no_number_is_cut_at_any_width(report: Report, width: int) -> None:
    text = printed(report, width)
    assert "…" not in text
    assert all(len(line) <= width for line in text.splitlines())
    for record in report.passes:
        # The same pass has rows in the table of sites; its row with a pattern comes first.
        cells = rows_of(text, record.name)[0]
        assert cells[1] == next(iter(record.patterns))
        assert format_error(record.isolated["logits"].relative_l2) in cells
        cumulative = record.cumulative["logits"]
        assert format_error(cumulative.relative_l2) in cells
        assert format_error(cumulative.kl) in cells
        assert format_share(cumulative.top1).split()[0] in cells
    known = approximants_by_key(report)
    for group in group_sites(report):
        worst = worst_error(group.sites, known)
        assert worst is not None
        [cells] = [cells for cells in rows_of(text, group.pass_name) if group.scheme in cells]
        assert cells[-4:-2] == ["≤" if worst.certified else "≈", format_error(worst.declared)]
        assert cells[-2:] == [worst.kind, format_error(worst.observed)]
    total = report.total["logits"]
    [cells] = rows_of(text, "logits")
    for value in (total.relative_l2, total.max_abs, total.rmse, total.kl):
        assert format_error(value) in cells
    assert format_cosine(total.cosine) in text


@pytest.mark.parametrize("width", [80, 100, 160])
def test_large_and_negative_numbers_are_not_cut_either(report: Report, width: int) -> None:
    huge = Metrics(1.23e-123, 4.56e-123, 7.89e-123, -0.123456, 3.21e-123, 0.12345)
    for record in report.passes:
        record.isolated = record.cumulative = {"logits": huge}
        record.sites = 123_456
    report.total = {"output_with_a_long_name_of_more_than_forty_letters": huge}
    text = printed(report, width)
    for number in ("1.2e-123", "4.6e-123", "7.9e-123", "-0.123456", "3.2e-123", "12.34 %"):
        assert number in text
    assert "123,456" in text


def test_headline_says_what_is_left(report: Report) -> None:
    text = printed(report, 100)
    assert "16 → 0 left" in text and "164 → 472" in text and "17 → 12" in text
    assert "12 in 4 passes" in text
    report.model.transcendental_after = {"Softmax": 2, "Exp": 1}
    assert "16 → 3 left: Softmax 2, Exp 1" in printed(report, 100)


def test_warnings_come_first_and_are_yellow(report: Report) -> None:
    text = printed(report, 100, ansi=True)
    assert text.startswith("\x1b[1;33mwarning: ")
    assert text.index("generated inputs") < text.index("attention-block.onnx")


def test_terminal_without_unicode(report: Report) -> None:
    text = printed(report, 80, encoding="ascii")
    assert "16 -> 0 left" in text and "<= " in text and "~ " in text


def test_nothing_to_do_and_missing_numbers(report: Report) -> None:
    model = ModelRecord("", 12, 12, 3, 3, 0, {}, {}, {}, {}, {})
    empty = Report(version="0", model=model, calibration={})
    assert "Nothing to do" in printed(empty, 80)
    empty.passes.append(PassRecord(name="exp", options={}))
    assert "nothing found for exp" in printed(empty, 80)

    report.total = {"logits": Metrics(math.inf, math.nan, math.nan, math.nan)}
    for record in report.passes:
        record.isolated, record.cumulative = {}, {}
    for site in report.sites:
        site.observed_absolute_error = site.observed_relative_error = None
    text = printed(report, 80)
    assert "n/a" in text and "nan" not in text and "inf" in text


def test_markup_in_names_is_printed_as_it_is(report: Report) -> None:
    report.model.path = "[red]model[/red].onnx"
    report.passes[0].name = report.sites[0].pass_name = "[bold]x[/oops]"
    report.warnings = ["[link=x]y"]
    text = printed(report, 160)
    assert "[red]model[/red].onnx" in text or "red].onnx" in text
    assert "[bold]x[/oops]" in text and "[link=x]y" in text


def test_worst_error_picks_the_kind_the_scheme_aims_at(report: Report) -> None:
    kinds = {
        group.function: worst_error(group.sites, approximants_by_key(report))
        for group in group_sites(report)
    }
    assert kinds["rsqrt"] is not None and kinds["rsqrt"].relative and kinds["rsqrt"].certified
    assert kinds["exp"] is not None and not kinds["exp"].relative and not kinds["exp"].certified
    assert worst_error([], {}) is None


def test_explanations_and_passes_list() -> None:
    stream = io.StringIO()
    console = Console(file=stream, width=80)
    name = "/model/layers.0/" + "very_long_module_name/" * 6 + "Reciprocal"
    render_explanations([Skipped(name, "Reciprocal", "input is ReduceMax, not Sqrt")], console)
    text = stream.getvalue()
    assert name in "".join(line.split()[0] for line in text.splitlines()[3:] if line.split())
    render_explanations([], console)
    assert "No near misses" in stream.getvalue()
    render_passes_list([PassSummary("rsqrt", "1 / sqrt(x)", {"error": 1e-5})], console)
    assert "rsqrt" in stream.getvalue() and "error=1e-05" in stream.getvalue()
