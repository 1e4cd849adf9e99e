"""The statistics of a rewrite: how many parts of the model were replaced, and what is gone.

Four counts of parts and three of operations, the figures by which the BitNet report and its like
describe such a surgery.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from odp.rewriter.report import Report, SiteRecord

__all__ = ["Statistics", "statistics"]

_ROOTS = ("sqrt", "rsqrt", "pow(")
_ROTATIONS = frozenset({"sin", "cos"})


@dataclass(frozen=True)
class Statistics:
    """Counts over all sites of a report.

    Attributes:
        norms: layer, RMS, group, instance and l2 norms.
        softmaxes: softmaxes, of attention and elsewhere.
        activations: SiLU, GELU, sigmoid, tanh, softplus and their kin.
        rotary_embeddings: pairs of sine and cosine of rotary positions.
        roots: square roots and their inverses that are gone, and other fractional powers.
        exponentials: exponentials and functions made of them (sigmoid, tanh, erf, log) that are
            gone.
        sines_and_cosines: likewise, those that became exact tables included.
    """

    norms: int
    softmaxes: int
    activations: int
    rotary_embeddings: int
    roots: int
    exponentials: int
    sines_and_cosines: int

    def parts(self) -> str:
        """What was replaced, for a person.

        >>> Statistics(61, 30, 30, 1, 61, 60, 2).parts()
        '61 norms, 30 softmaxes, 30 activations, 1 rotary embedding'
        """
        return _listed(
            (self.norms, "norm", "norms"),
            (self.softmaxes, "softmax", "softmaxes"),
            (self.activations, "activation", "activations"),
            (self.rotary_embeddings, "rotary embedding", "rotary embeddings"),
        )

    def operations(self) -> str:
        """What is gone, for a person.

        >>> Statistics(61, 30, 30, 1, 61, 60, 2).operations()
        '61 roots, 60 exponentials, 2 sines and cosines'
        """
        return _listed(
            (self.roots, "root", "roots"),
            (self.exponentials, "exponential", "exponentials"),
            (self.sines_and_cosines, "sine or cosine", "sines and cosines"),
        )


def statistics(report: Report) -> Statistics:
    """Count the parts and operations of a report."""
    patterns = {k: n for record in report.passes for k, n in record.patterns.items()}
    tables = sum(patterns.get(name, 0) for name in ("rope_sin", "rope_cos"))
    folded = sum(record.folded for record in report.passes if record.name == "rope")
    functions = [site.function for site in report.sites]
    roots = sum(function.startswith(_ROOTS) for function in functions)
    rotations = sum(function in _ROTATIONS for function in functions)
    return Statistics(
        norms=_parts(site for site in report.sites if _is_norm(site)),
        softmaxes=_parts(site for site in report.sites if _is_softmax(site)),
        activations=_parts(
            site
            for site in report.sites
            if not (_is_norm(site) or _is_softmax(site))
            and not site.function.startswith(_ROOTS)
            and site.function not in _ROTATIONS
        ),
        rotary_embeddings=tables // 2,
        roots=roots,
        exponentials=len(functions) - roots - rotations,
        sines_and_cosines=rotations + folded,
    )


def _parts(sites: Iterable[SiteRecord]) -> int:
    """Matches among sites: a recurrent layer or a log-softmax has several sites, and is one."""
    return len({site.id.rpartition("/")[0] for site in sites})


def _is_norm(site: SiteRecord) -> bool:
    return site.function.startswith(_ROOTS) and (
        "norm" in site.pattern or "norm" in site.module_type.lower()
    )


def _is_softmax(site: SiteRecord) -> bool:
    whole = ("attention", "exp_of_shifted", "exp_over_sum")
    return "softmax" in site.pattern or site.pattern in whole


def _listed(*counts: tuple[int, str, str]) -> str:
    words = [f"{n:,} {one if n == 1 else many}" for n, one, many in counts if n]
    return ", ".join(words) or "nothing"
