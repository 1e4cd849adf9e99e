"""Whether generated text goes round in circles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Diversity", "diversity"]

REPEATED = 4


@dataclass(frozen=True)
class Diversity:
    """How varied the answers of one model are.

    Attributes:
        answers: number of answers.
        tokens: of all of them.
        repetition: share of the runs of 4 tokens that came before in the same answer, on average
            over answers of at least 4 tokens (Welleck et al., arXiv:1908.04319, seq-rep-4); None
            if there is no such answer.
        distinct: different runs of 1, 2 and 3 tokens over all runs of that length, in all answers
            together (Li et al., arXiv:1510.03055, distinct-n); None where there is no such run.
    """

    answers: int
    tokens: int
    repetition: float | None
    distinct: tuple[float | None, float | None, float | None]


def diversity(answers: Sequence[Sequence[int]]) -> Diversity:
    """Measure answers.

    Args:
        answers: token ids of each.

    >>> diversity([[1, 2, 1, 2, 1, 2, 1, 2]])
    Diversity(answers=1, tokens=8, repetition=0.6, distinct=(0.25, 0.2857..., 0.3333...))
    """
    repetitions = []
    for answer in answers:
        runs = _runs(answer, REPEATED)
        if runs:
            repetitions.append(1 - len(set(runs)) / len(runs))
    return Diversity(
        answers=len(answers),
        tokens=sum(len(answer) for answer in answers),
        repetition=sum(repetitions) / len(repetitions) if repetitions else None,
        distinct=(_distinct(answers, 1), _distinct(answers, 2), _distinct(answers, 3)),
    )


def _distinct(answers: Sequence[Sequence[int]], length: int) -> float | None:
    runs = [run for answer in answers for run in _runs(answer, length)]
    return len(set(runs)) / len(runs) if runs else None


def _runs(answer: Sequence[int], length: int) -> list[tuple[int, ...]]:
    return [tuple(answer[i : i + length]) for i in range(len(answer) - length + 1)]
