"""Writes docs/conformance.md from the node tests: `python -m tests.conformance.page`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from .node_cases import OUT_OF_SCOPE, node_cases

__all__ = ["PAGE", "conformance_page"]

PAGE = Path(__file__).parents[2] / "docs" / "conformance.md"

_HEAD = """\
# Conformance with ONNX's own node tests

<!-- Written by `python -m tests.conformance.page`; a test compares it. -->

The onnx package generates a test for every operator: a model with one node, inputs, and the outputs
of a reference. Of those in float32, {total} contain a transcendental operation, a root, or an
operator that hides one (`Softmax`, `LSTM`, `Attention`, every norm). A name ending in `_expanded`
is the function body of the operator, spelled out.

**{rewritten} of {total} ({share:.1f} %) are rewritten until no such operation is left**, with
`--passes all` at default settings and the inputs of the test as calibration data. Two things are
checked for each: with the native functions in the new structure, ONNX Runtime gives the outputs of
the reference to float32 rounding; with the chosen expressions, it stays within the bound that a
running error analysis derives from the errors declared for the sites
(`tests/conformance/running_error.py`). The bounds say something: on 95 % of the cases they are
below a thousandth of the largest output.
"""


def conformance_page() -> str:
    """The page as it should stand in docs/."""
    cases = node_cases()
    every = Counter(case.operator for case in cases)
    left = Counter(case.operator for case in cases if case.name in OUT_OF_SCOPE)
    total, rewritten = len(cases), len(cases) - len(OUT_OF_SCOPE)
    lines = [
        _HEAD.format(total=total, rewritten=rewritten, share=100 * rewritten / total),
        f"## The {len(OUT_OF_SCOPE)} that are not",
        "",
        "| case | reason |",
        "|---|---|",
        *(f"| `{name}` | {reason} |" for name, reason in sorted(OUT_OF_SCOPE.items())),
        "",
        "## By operator",
        "",
        "Function bodies of several nodes are counted under their first transcendental operator.",
        "",
        "| operator | cases | rewritten |",
        "|---|---:|---:|",
        *(f"| {name} | {n} | {n - left[name]} |" for name, n in sorted(every.items())),
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(conformance_page())
