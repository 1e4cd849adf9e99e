"""The HTML view: well-formed, self-contained, escaped, complete, graceful when data is missing."""

# ruff: noqa: RUF001 - the page has real minus signs

from __future__ import annotations

import importlib.util
import itertools
import math
import re
import time
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from odp.rewriter.report import (
    ApproximantRecord,
    Histogram,
    Metrics,
    ModelRecord,
    PassRecord,
    Report,
    Skipped,
)
from odp.rewriter.report_html import render_html
from odp.rewriter.report_math import latex_to_mathml
from odp.rewriter.report_plot import Scale, approximant_figure, rebin, sparkline

VOID = {"meta", "link", "br", "wbr", "input"}


def load_sample() -> ModuleType:
    path = Path(__file__).with_name("sample_report.py")
    specification = importlib.util.spec_from_file_location("sample_report", path)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


SAMPLE = load_sample()


class Page(HTMLParser):
    """Checks that tags are balanced and keeps what the tests ask about."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == [], f"left open: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if "script" not in self.open and "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return "".join(self.words)

    def attributes(self, name: str) -> list[str]:
        return [value for _, attrs in self.tags if (value := attrs.get(name)) is not None]


def empty_report() -> Report:
    model = ModelRecord("", 17, 17, 3, 3, 0, {}, {}, {}, {}, {})
    return Report(version="0", model=model, calibration={})


@pytest.fixture(scope="module")
def report() -> Report:
    made: Report = SAMPLE.sample_report()
    return made


@pytest.fixture(scope="module")
def html(report: Report) -> str:
    return render_html(report)


def test_page_is_well_formed_and_ids_are_unique(html: str) -> None:
    page = Page(html)
    ids = page.attributes("id")
    assert len(ids) == len(set(ids))
    links = [link for link in page.attributes("href") if link.startswith("#")]
    assert links and {link[1:] for link in links} <= set(ids)


def test_page_loads_nothing(html: str) -> None:
    page = Page(html)
    loads = page.attributes("src") + page.attributes("href") + page.attributes("xlink:href")
    assert all(load.startswith(("#", "data:")) for load in loads)
    assert "http://" not in html and "https://" not in html
    assert "@import" not in html and "url(" not in html
    assert "default-src 'none'" in html


def test_page_shows_every_site_pass_approximant_and_operator(report: Report, html: str) -> None:
    text = Page(html).text
    for site in report.sites:
        assert site.id in text and site.node in text and site.module_path in text
    for record in report.passes:
        assert record.name in text
        for note in record.notes:
            assert note in text
        for skipped in record.skipped:
            assert skipped.node in text and skipped.reason in text
    for approximant in report.approximants:
        assert f'id="a-{approximant.key}"' in html and approximant.description in text
    for operator in report.model.ops_before | report.model.ops_after:
        assert operator in text
    for warning in report.warnings:
        assert warning in text


def test_headline_is_the_total_error(report: Report, html: str) -> None:
    head = html[html.index('id="overview"') : html.index('id="passes"')]
    total = report.total["logits"]
    mantissa, exponent = f"{total.relative_l2:.1e}".split("e")
    assert f"{mantissa}e−{-int(exponent)}" in head
    assert "16 → " in head and "none left" in head


def test_figures_are_accessible_and_hold_no_nan(html: str) -> None:
    page = Page(html)
    images = [attrs for tag, attrs in page.tags if tag == "svg" and attrs.get("role") == "img"]
    assert len(images) == 6
    assert html.count("<title>") == 1 + len(images)
    for path in page.attributes("d"):
        assert not re.search(r"nan|inf", path, re.IGNORECASE)
    tables = sum(tag == "table" for tag, _ in page.tags)
    assert tables == sum(tag == "caption" for tag, _ in page.tags)
    headings = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h\d", tag)]
    assert headings[0] == 1 and headings.count(1) == 1
    assert all(deeper - level <= 1 for level, deeper in itertools.pairwise(headings))


def contrast(first: str, second: str) -> float:
    """Contrast ratio of two colours, WCAG 2.2."""

    def luminance(colour: str) -> float:
        channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(first), luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_both_colour_schemes_have_readable_text(html: str) -> None:
    assert "@media (prefers-color-scheme: dark)" in html
    light, dark = re.findall(r":root \{(.*?)\}", html, re.DOTALL)[:2]
    for block in (light, dark):
        colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", block))
        for text in ("text", "dim", "link", "trans", "good"):
            for ground in ("page", "surface"):
                assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
        assert contrast(colours["warn-text"], colours["warn-fill"]) >= 4.5
        for line in ("approximate", "error", "cumulative"):
            assert contrast(colours[line], colours["surface"]) >= 3, line


def test_names_of_the_model_are_escaped() -> None:
    report: Report = SAMPLE.sample_report(2)
    evil = "<script>alert('x')</script>&\"" + "long/" * 80
    report.model.path = evil
    report.model.ops_before[evil] = 3
    report.model.transcendental_after[evil] = 1
    report.model.inputs[evil] = [1]
    report.calibration[evil] = evil
    report.warnings.append(evil)
    report.passes[0].name = evil
    report.passes[0].patterns[evil] = 1
    report.passes[0].options[evil] = evil
    report.passes[0].notes.append(evil)
    report.passes[0].skipped.append(Skipped(evil, evil, evil))
    report.total[evil] = report.total["logits"]
    site, approximant = report.sites[0], report.approximants[0]
    site.id = site.node = site.module_path = site.pattern = site.graph = site.pass_name = evil
    site.approximant = approximant.key = approximant.function = approximant.latex = evil
    approximant.description = evil
    page = render_html(report)
    assert page.count("<script>") == 1
    text = Page(page).text
    assert text.count("<script>alert('x')</script>") >= 15


def test_nothing_to_do_is_said() -> None:
    text = Page(render_html(empty_report())).text
    assert "Nothing to do" in text and "no transcendental operation" in text
    assert "nan" not in text.lower().split()


def test_missing_and_infinite_numbers_are_shown_as_such() -> None:
    report: Report = SAMPLE.sample_report(2)
    for record in report.passes:
        record.isolated = {}
        record.cumulative = {"logits": Metrics(math.inf, math.nan, math.inf, math.nan)}
    report.total = {"logits": Metrics(math.nan, math.nan, math.nan, math.nan)}
    for site in report.sites:
        site.histogram = site.observed = site.elements = None
        site.observed_absolute_error = site.observed_relative_error = None
    for approximant in report.approximants:
        approximant.float32_error = approximant.absolute_error = math.inf
        approximant.relative_error = None
        approximant.curve_approximate[10:20] = [math.inf, math.nan] * 5
        approximant.curve_exact[30] = -math.inf
    html = render_html(report)
    page = Page(html)
    assert "not measured" in page.text and "∞" in page.text and "KL" not in page.text
    assert html.count('<svg class="figure"') == len(report.approximants)
    assert not any(re.search(r"nan|inf", path, re.IGNORECASE) for path in page.attributes("d"))
    for approximant in report.approximants:
        approximant.curve_x = []
    assert render_html(report).count("No curve was recorded") == len(report.approximants)


def test_hundreds_of_sites_stay_small_and_fast() -> None:
    report: Report = SAMPLE.sample_report(134, 13)
    assert len(report.sites) == 402 and len(report.approximants) == 39
    render_html(report)
    start = time.process_time()
    html = render_html(report)
    assert time.process_time() - start < 2.0
    assert len(html.encode()) < 2_000_000
    page = Page(html)
    assert all(site.id in page.text for site in report.sites)
    folded = [attrs for tag, attrs in page.tags if tag == "details" and "open" not in attrs]
    assert len(folded) >= 3


def test_several_outputs_speak_about_the_worst() -> None:
    report: Report = SAMPLE.sample_report(2)
    good, bad = Metrics(0, 0, 1e-9, 1), Metrics(0.5, 0.1, 0.25, 0.9)
    report.total = {"hidden": good, "pooled": bad}
    for record in report.passes:
        record.isolated = record.cumulative = {"hidden": good, "pooled": bad}
    text = Page(render_html(report)).text
    assert "metrics of output pooled" in text and "All 2 outputs" in text and "2.5e−1" in text


def test_rebinning_keeps_the_number_of_values() -> None:
    values = np.random.default_rng(0).normal(size=1000)
    histograms = []
    for part, bins in ((values[:300], 7), (values[300:], 31)):
        counts, edges = np.histogram(part, bins=bins)
        histograms.append(Histogram(edges.tolist(), counts.tolist()))
    sums, outside = rebin(histograms, np.linspace(-6, 6, 50))
    assert sums.sum() == pytest.approx(1000) and outside == 0
    _, outside = rebin(histograms, np.array([-6.0, 0.0]))
    assert outside == pytest.approx((values > 0).mean(), abs=0.05)
    assert rebin([Histogram([0.0, math.inf], [3])], np.array([0.0, 1.0]))[0].sum() == 0


def test_a_narrow_peak_of_the_error_survives_thinning() -> None:
    x = np.linspace(0, 1, 20_001)
    approximate = x + 1e-6
    approximate[12_345] += 1e-3
    record = ApproximantRecord(
        "f-1", "f", "s", "", "", (0, 1), 1e-3, None, "measured", 0, (None, None), 1, 0, 1,
        x.tolist(), x.tolist(), approximate.tolist(),
    )  # fmt: skip
    figure = approximant_figure(record, [], None)
    assert figure is not None
    path = re.search(r'class="error" d="([^"]*)"', figure)
    assert path is not None and len(path.group(1)) < 16_000
    heights = [float(height) for height in re.findall(r" (\d+\.\d)", path.group(1))]
    assert min(heights) < min(sorted(heights)[1:]) - 20


def test_constant_function_and_degenerate_histogram() -> None:
    record = ApproximantRecord(
        "one-1", "one", "s", "", "", (0, 1), 0.0, 0.0, "certified", 0, (None, None), 0, 0, 0,
        [0.0, 0.5, 1.0], [1.0, 1.0, 1.0], [1.0, 1.0, 1.0],
    )  # fmt: skip
    figure = approximant_figure(record, [Histogram([0.5, 0.5], [4])], (0.5, 0.5))
    assert figure is not None and "nan" not in figure
    assert sparkline(Histogram([0.5, 0.5], [4])) is None
    assert sparkline(None) is None
    assert sparkline(Histogram([0.0, 1.0], [0])) is None


@pytest.mark.parametrize("low", [-1e9, -3.2e-7, 0.0, 12.0, 1e30])
@pytest.mark.parametrize("span", [1e-9, 0.7, 41.0, 1e8])
def test_linear_ticks_lie_on_the_axis(low: float, span: float) -> None:
    span = max(span, 1e-9 * abs(low))  # below, float64 has no room between the bounds
    ticks = Scale(low, low + span, 0, 100).ticks(5)
    assert len(ticks) <= 6
    assert all(low - span * 1e-6 <= value <= low + span * (1 + 1e-6) for value, _ in ticks)


def test_latex_of_rational_expressions_becomes_mathml() -> None:
    formula = r"\left(\frac{1 + 2.5 x_{0}}{\sqrt{y} - 10^{-5} \cdot x^{2}}\right)^{8}"
    math_element = latex_to_mathml(formula)
    assert math_element is not None
    page = Page(str(math_element))
    names = [tag for tag, _ in page.tags]
    assert names.count("msup") == 3 and names.count("mfrac") == 1 and names.count("msub") == 1
    assert page.text == "(1+2.5x0y−10−5⋅x2)8"


@pytest.mark.parametrize(
    "latex", [r"\begin{cases} 1", r"\frac{1}", "{x", r"\left(x", "x^", "&", r"\sqrt[3]{x}"]
)
def test_unknown_latex_is_shown_as_source(latex: str) -> None:
    assert latex_to_mathml(latex) is None


def test_a_pass_that_only_folds_has_no_site_error() -> None:
    report = empty_report()
    report.passes.append(PassRecord(name="rope", options={}, folded=4))
    text = Page(render_html(report)).text
    assert "4 nodes folded" in text and "Nothing to do" not in text
