"""`odp.sensitivity` and `odp.allocate`: where accuracy matters, and spending operations there."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from odp.approximations.errors import OdpError
from odp.evaluation.allocation import Allocation, Candidate, allocate
from odp.evaluation.sensitivity import (
    SiteSensitivity,
    choice_error,
    mean_divergence,
    measure_sensitivity,
)
from odp.job import Job, Stage
from odp.rewriting import RewriteResult, job_of

if TYPE_CHECKING:
    import torch

    from odp.backends.torch.inputs import Inputs
    from odp.backends.torch.modules_target import ModulesTarget
    from odp.rewriter.rewrite_pass import Pass
    from odp.rewriter.selection import Choice, Selection
    from odp.torch_rewriting import Calibrated

__all__ = ["Budget", "Uniform", "allocate_operations", "sensitivity"]

_GRID = tuple(10.0**-k for k in range(1, 7))
"""Error budgets from 0.1 to 1e-6: what a site may get."""

_COARSE = 1e-2

# Sites differ by far more than what longer windows show, and every site is measured alone.
_CONTEXT = 256


@dataclass(frozen=True)
class Uniform:
    """What the same error budget for all sites costs and does.

    Attributes:
        error: the budget.
        operations: multiplications and divisions (a division counts as 3) for each token.
        predicted_kl: divergence that the sensitivities predict, in nats.
    """

    error: float
    operations: float
    predicted_kl: float


@dataclass
class Budget:
    """Which site costs the quality, what quality costs, and one allocation of operations.

    Attributes:
        sites: every site by itself, the most sensitive first.
        uniform: the same error for all sites, from coarse to fine.
        tokens: number of tokens that divergences are means over.
        context: tokens of a window; what softmaxes cost for each token grows with it.
        operations: budget for each token, if one was given.
        allocated: error by site id, for that budget.
        predicted_kl: of the allocation, in nats.
        measured_kl: of the allocation.
        best_uniform: the finest uniform error within the budget.
        measured_uniform_kl: its divergence as measured.
    """

    sites: list[SiteSensitivity]
    uniform: list[Uniform]
    tokens: int
    context: int
    operations: float | None = None
    allocated: dict[str, float] = field(default_factory=dict)
    predicted_kl: float | None = None
    measured_kl: float | None = None
    best_uniform: Uniform | None = None
    measured_uniform_kl: float | None = None

    def to_json(self) -> str:
        """Everything as JSON."""
        tree = asdict(self)
        for site, entry in zip(self.sites, tree["sites"], strict=True):
            entry["coefficient"] = site.coefficient
        return json.dumps(tree, indent=1)


def sensitivity(
    model: torch.nn.Module,
    passes: str | Sequence[Pass] = "all",
    *,
    calibration: Any,
    tokenizer: Any = None,
    context: int | None = None,
    samples: int | None = 2,
    coarse: float = _COARSE,
    progress: Stage = lambda what, done, total: None,
) -> Budget:
    """Measure how much each site of a language model changes its predictions.

    Args:
        model: a model of transformers, or any module that returns logits; unchanged.
        passes: what to replace.
        calibration: inputs or text with a `tokenizer`, as for `odp.rewrite`; domains come from it,
            and divergences are measured on it.
        tokenizer: of transformers.
        context: tokens of a window; 256, or what the model takes, if None.
        samples: windows to use.
        coarse: error of the expressions that are measured with; the divergence of finer ones
            follows from it.
        progress: called when a stage advances.

    Returns:
        A budget without an allocation.

    Raises:
        OdpError: bad input; one line that says what, where and what to do.
    """
    return _Study(model, passes, calibration, tokenizer, context, samples, coarse, progress).budget


def allocate_operations(
    model: torch.nn.Module,
    operations: float,
    passes: str | Sequence[Pass] = "all",
    *,
    calibration: Any,
    tokenizer: Any = None,
    context: int | None = None,
    samples: int | None = 2,
    coarse: float = _COARSE,
    progress: Stage = lambda what, done, total: None,
) -> tuple[RewriteResult, Budget]:
    """Rewrite a language model with a total number of operations, spent where they matter.

    Args:
        model: see `sensitivity`, as all that follow but `operations`.
        operations: multiplications and divisions (which count as 3) of all expressions together,
            for each token at this `context`.
        passes: see there.
        calibration: see there.
        tokenizer: see there.
        context: see there.
        samples: see there.
        coarse: see there.
        progress: see there.

    Returns:
        The rewritten model with its report, and the budget with the allocation, the divergence it
        predicts, and what was measured for it and for the best uniform error of the same price.

    Raises:
        OdpError: bad input, or the budget does not pay for the cheapest expressions.
    """
    study = _Study(model, passes, calibration, tokenizer, context, samples, coarse, progress)
    return study.allocated(operations), study.budget


class _Study:
    """One model, its sites, and the expressions that each could get."""

    def __init__(
        self,
        model: torch.nn.Module,
        passes: str | Sequence[Pass],
        calibration: Any,
        tokenizer: Any,
        context: int | None,
        samples: int | None,
        coarse: float,
        progress: Stage,
    ) -> None:
        from odp.rewriter.selection import Defaults, select
        from odp.torch_rewriting import calibrate_module

        if not 0.0 < coarse < 1.0:
            raise OdpError(f"coarse must be an error between 0 and 1, not {coarse:g}")
        if context is None:
            known = getattr(getattr(model, "config", None), "max_position_embeddings", None)
            context = min(_CONTEXT, known or _CONTEXT)
        self.job: Job = job_of(
            passes, calibration=calibration, samples=samples, measure=False, progress=progress
        )
        self.known: Calibrated = calibrate_module(
            model,
            self.job,
            tokenizer=tokenizer,
            context=context,
            structure="modules",
            share_parameters=True,
        )
        self.inputs: list[Inputs] = list(self.known.data.batches)
        tokens = [next(iter(i.tensors.values())).numel() for i in self.inputs]
        seen = self.known.observations
        self.per_token = {s: seen[s].elements / max(tokens) for s in self.known.sites}
        self.selections: dict[float, Selection] = {}
        errors = sorted({*_GRID, coarse}, reverse=True)
        for done, error in enumerate(errors):
            progress("approximate", done, len(errors))
            defaults = replace(self.job.defaults, error=error)
            assert isinstance(defaults, Defaults)
            self.selections[error] = select(self.known.sites, seen, defaults)
        progress("approximate", len(errors), len(errors))
        measured = measure_sensitivity(
            self.target.sites_alone,
            self.known.original,
            self.inputs,
            self.selections[coarse],
            self.known.sites,
            self.per_token,
            lambda done, total: progress("sensitivity", done, total),
        )
        self.coefficients = {one.site: one.coefficient for one in measured}
        uniform = [self._uniform(error) for error in _GRID]
        self.budget = Budget(measured, uniform, sum(tokens), max(tokens))

    @property
    def target(self) -> ModulesTarget:
        """The target, which keeps its class."""
        from odp.backends.torch.modules_target import ModulesTarget

        assert isinstance(self.known.target, ModulesTarget)
        return self.known.target

    def allocated(self, operations: float) -> RewriteResult:
        """Rewrite within a budget, and measure it beside the best uniform error."""
        from odp.torch_rewriting import finish_module

        allocation = allocate(self._fronts(), self.coefficients, self.per_token, operations)
        affordable = [u for u in self.budget.uniform if u.operations <= operations]
        if affordable:
            best = min(affordable, key=lambda u: u.predicted_kl)
            self.budget.best_uniform = best
            self.budget.measured_uniform_kl = self._measured(self.selections[best.error])
        selection = self._selection(allocation)
        self.budget.operations = operations
        self.budget.allocated = {s: c.error for s, c in allocation.chosen.items()}
        self.budget.predicted_kl = allocation.predicted_kl
        self.budget.measured_kl = self._measured(selection)
        return RewriteResult(*finish_module(self.known, selection, self.job))

    def _measured(self, selection: Selection) -> float:
        with self.target.variant(selection, None) as run:
            return mean_divergence(self.known.original, run, self.inputs)

    def _selection(self, allocation: Allocation) -> Selection:
        """The finest selection with the expressions of an allocation in it."""
        finest = self.selections[min(self.selections)]
        choices = {s: c.choice for s, c in allocation.chosen.items()}
        return replace(finest, choices=choices)

    def _fronts(self) -> Mapping[str, list[Candidate]]:
        """What each site could get: rising in cost, falling in error."""
        fronts: dict[str, list[Candidate]] = {}
        for site_id in self.coefficients:
            best: list[Candidate] = []
            offers = [s.choices[site_id] for s in self.selections.values() if site_id in s.choices]
            for candidate in sorted(map(_candidate, offers), key=lambda c: (c.operations, c.error)):
                if not best or candidate.error < best[-1].error:
                    best.append(candidate)
            fronts[site_id] = best
        return fronts

    def _uniform(self, error: float) -> Uniform:
        operations = kl = 0.0
        for site_id, choice in self.selections[error].choices.items():
            candidate = _candidate(choice)
            operations += self.per_token[site_id] * candidate.operations
            kl += self.coefficients.get(site_id, 0.0) * candidate.error**2
        return Uniform(error, operations, kl)


def _candidate(choice: Choice) -> Candidate:
    counts = choice.approximant.counts
    operations = counts.multiplications + 3 * counts.divisions
    return Candidate(choice, choice_error(choice), float(operations))
