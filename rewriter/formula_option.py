"""The option `formula` of a pass: the user's own expression, which stands for one function."""

from __future__ import annotations

from collections.abc import Mapping

from odp.approximations.errors import ApproximationError
from odp.approximations.formula_approximant import check_formula
from odp.approximations.functions.registry import FUNCTIONS
from odp.rewriter.rewrite_pass import ELEMENTARY, Pass
from odp.rewriter.site import Site

__all__ = ["check_formula_option", "check_formula_sites"]


def check_formula_option(rewrite: Pass) -> None:
    """Refuse a formula that cannot be read, and options that have no meaning beside one.

    Raises:
        ApproximationError: one line that names the pass.
    """
    if rewrite.formula is None:
        return
    where = f"pass '{rewrite.name}'"
    check_formula(where, rewrite.formula, rewrite.scheme, rewrite.scheme_parameters())
    if rewrite.weighted and rewrite.error is None:
        raise ApproximationError(
            f"{where}: 'weighted' weighs the error allowed, and a formula is taken whatever its"
            " error; give an error, too, or leave out weighted"
        )


def check_formula_sites(sites: Mapping[str, Site]) -> None:
    """Refuse a formula that would stand for two functions, or for another than the one named.

    An elementary pass names its function, also where a composite is rewritten on its behalf: the
    `tanh` of a GELU is approximated by a sigmoid, for which a formula of tanh is of no use.

    Args:
        sites: everything that the passes found in one model.

    Raises:
        ApproximationError: one line that names the pass, both functions and the node.
    """
    meant: dict[str, str] = {}
    for site in sites.values():
        request = site.request
        rewrite, typed = request.rewrite, request.typed
        if rewrite.formula is None:
            continue
        composite = rewrite.name
        if request.functions is not None and len(request.functions) > 1:
            both = " and ".join(sorted(request.functions))
            raise ApproximationError(
                f"{composite} at '{site.node}' is rewritten for {both} at once, and a formula"
                f" stands for one; name the pass {composite} as well, to give it options of its own"
            )
        named = request.functions is not None or rewrite.stage == ELEMENTARY
        own = typed if named and typed in FUNCTIONS else meant.setdefault(typed, site.function)
        if site.function == own:
            continue
        if composite != typed:
            raise ApproximationError(
                f"pass '{typed}': its formula stands for {own}, and {composite} at '{site.node}'"
                f" needs {site.function}; name the pass {composite} as well, to give it options"
                " of its own"
            )
        advice = f"give it to the pass of one function, as in {own}{{formula=...}}"
        if rewrite.stage == ELEMENTARY:
            advice = "leave it out"
        raise ApproximationError(
            f"pass '{typed}': one formula cannot stand for both {own} and {site.function}, which"
            f" '{site.node}' needs; {advice}"
        )
