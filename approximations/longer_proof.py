"""A longer try at the proof of one approximant, for what is not one of many candidates."""

from __future__ import annotations

from dataclasses import replace

from odp.approximations.approximant import Approximant
from odp.approximations.proofs.certify import certify
from odp.approximations.proofs.error_proof import WORK

__all__ = ["longer_proof"]

# Up to two seconds where a search, which proves many expressions, gives up after half of one.
_WORK = 4 * WORK


def longer_proof(approximant: Approximant) -> Approximant:
    """The approximant with its errors proven by more work, where the search found no proof.

    Where that does not suffice either, it is returned as it is: measured.

    Args:
        approximant: with one absolute or one relative error; what share of a budget of several
            parts is used is not proven here.
    """
    if approximant.error_kind == "certified":
        return approximant
    proof = certify(
        approximant.expression,
        approximant.function,
        approximant.domain,
        absolute=approximant.absolute_error,
        relative=approximant.relative_error if approximant.relative else None,
        work=_WORK,
    )
    if proof is None or (approximant.relative and proof.relative is None):
        return approximant
    return replace(
        approximant,
        absolute_error=proof.absolute,
        relative_error=proof.relative,
        error_kind="certified",
    )
