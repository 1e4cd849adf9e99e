"""Which site costs the quality of a language model?

An expression that is wrong by a small e at one site changes the predictions by a divergence that
grows with e^2: the Kullback-Leibler divergence is zero at its minimum, and so is its gradient.  One
measurement with a coarse expression therefore tells the divergence of every finer one,

    KL(e) = s * e^2,    s = KL(e0) / e0^2,

and as long as divergences are small, those of different sites add up.  With the errors of float32
expressions themselves nothing could be measured: at 1e-5 the divergence of one site drowns in
rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from odp.approximations.errors import OdpError
from odp.rewriter.selection import Choice, Selection
from odp.rewriter.site import Site

if TYPE_CHECKING:
    import torch

    from odp.backends.torch.inputs import Inputs

    Alone = Callable[[Selection], AbstractContextManager[Callable[[Inputs], Any]]]

__all__ = ["SiteSensitivity", "measure_sensitivity"]

_FLOOR = 1e-13
"""Divergence below which a measurement is rounding: two orders above what two runs of a float32
model of 30 layers differ by when the order of a sum changes."""


@dataclass(frozen=True)
class SiteSensitivity:
    """What one site does to the predictions of a model.

    Attributes:
        site: id of the site.
        module: path of its module.
        function: the function that is replaced.
        error: declared error of the coarse expression, in the measure of the site.
        kl: mean divergence KL(original || rewritten) over the tokens with that expression at this
            site alone, in nats.
        per_token: evaluations of the expression for each token.
        multiplications: of the coarse expression.
    """

    site: str
    module: str
    function: str
    error: float
    kl: float
    per_token: float
    multiplications: int

    @property
    def coefficient(self) -> float:
        """Divergence per squared error: s in KL = s e^2."""
        return max(self.kl, _FLOOR) / self.error**2


def measure_sensitivity(
    alone: Alone,
    original: torch.nn.Module,
    inputs: Sequence[Inputs],
    coarse: Selection,
    sites: dict[str, Site],
    per_token: dict[str, float],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[SiteSensitivity]:
    """Measure every site by itself.

    Args:
        alone: gives the model with the expressions of a selection and native functions elsewhere.
        original: the model before.
        inputs: windows of tokens; the logits of all of them are kept, so a thousand tokens or so.
        coarse: an expression with an error of 1e-3 or more for every site.
        sites: by id.
        per_token: evaluations for each token, by site id.
        progress: called with the number of sites that are done, and of all.

    Returns:
        One entry for each site that `coarse` has an expression for, the most sensitive first.

    Raises:
        OdpError: the model returns no logits.
    """
    reference = [_Reference(window.call(original)) for window in inputs]
    found = []
    for done, (site_id, choice) in enumerate(coarse.choices.items()):
        progress(done, len(coarse.choices))
        with alone(Selection({site_id: choice}, {}, [], None)) as run:
            kl = _mean_divergence(reference, (run(window) for window in inputs))
        site = sites[site_id]
        found.append(
            SiteSensitivity(
                site_id,
                site.module_path,
                site.function,
                choice_error(choice),
                kl,
                per_token[site_id],
                choice.approximant.counts.multiplications,
            )
        )
    progress(len(coarse.choices), len(coarse.choices))
    return sorted(found, key=lambda one: -one.coefficient)


def choice_error(choice: Choice) -> float:
    """The declared error in the measure by which an expression was chosen."""
    approximant = choice.approximant
    if approximant.relative and approximant.relative_error is not None:
        return approximant.relative_error
    return approximant.absolute_error


def mean_divergence(
    original: torch.nn.Module, run: Callable[[Inputs], Any], inputs: Sequence[Inputs]
) -> float:
    """Mean KL(original || run) over all tokens, in nats."""
    total, count = 0.0, 0
    for window in inputs:
        reference = _Reference(window.call(original))
        total += reference.divergence(run(window))
        count += reference.tokens
    return total / max(count, 1)


class _Reference:
    """The predictions of the original for one window.

    KL(p || q) = sum p log p - sum p log q: the first sum is the same for every site.  In float64
    the difference is right to 1e-15, far below anything that float32 models differ by.
    """

    def __init__(self, result: Any) -> None:
        log_p = _log_probabilities(result)
        self.p = log_p.exp()
        self.negentropy = float((self.p * log_p).sum())
        self.tokens = log_p.shape[0]

    def divergence(self, result: Any) -> float:
        """Sum over tokens of KL(original || result), in nats."""
        return self.negentropy - float((self.p * _log_probabilities(result)).sum())


def _log_probabilities(result: Any) -> torch.Tensor:
    """Logarithms of probabilities, float64, (tokens, vocabulary)."""
    import torch

    logits = getattr(result, "logits", result)
    if not isinstance(logits, torch.Tensor) or logits.dim() < 2:
        raise OdpError("sensitivity is measured on logits, and this model returns none")
    rows = logits.detach().reshape(-1, logits.shape[-1])
    return rows.double().log_softmax(-1)


def _mean_divergence(references: Sequence[_Reference], results: Iterable[Any]) -> float:
    pairs = zip(references, results, strict=True)
    total = sum(reference.divergence(result) for reference, result in pairs)
    return total / max(sum(reference.tokens for reference in references), 1)
