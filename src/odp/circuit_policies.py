"""Which of several circuits of one model is the cheapest, and what each place would have cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from odp.approximations.errors import OdpError

if TYPE_CHECKING:
    from odp.backends.ezkl.compiler import Compiled
    from odp.backends.ezkl.policy import Native
    from odp.circuit_rewriting import Rewritten

    Made = tuple[Rewritten, Compiled]

__all__ = ["cheapest"]


def cheapest(make: Callable[[Native], Made]) -> tuple[Made, Native, dict[str, Any]]:
    """Compile a model with and without EZKL's own roots and reciprocals; keep the cheapest circuit.

    Roots and divisions are decided apart, and by whole circuits: what an operation costs shows in
    the scales of all the others.

    Args:
        make: compiles the model with what may stay native.

    Returns:
        The circuit with the lowest predicted price (time and memory), what stayed native in it, and
        a record of all: price and rows of each circuit, and rows of each place in each of them.

    Raises:
        OdpError: no circuit can be made in any way; says why the rational one cannot.
    """
    from odp.backends.ezkl.columns import price
    from odp.backends.ezkl.policy import Native

    made: dict[Native, Made] = {}
    failures: dict[Native, OdpError] = {}

    def tried(native: Native) -> float | None:
        try:
            made[native] = make(native)
        except OdpError as error:
            failures[native] = error
            return None
        return price(made[native][1].cost)

    rational, both = Native(), Native(roots=True, divisions=True)
    plain = tried(rational)
    if plain is None:
        # What is wrong with the model itself, bad input say, is wrong in any form.
        tried(both)
    else:
        roots, divisions = _present(made[rational][0])
        better = [
            native
            for native, is_there in (
                (Native(roots=True), roots),
                (Native(divisions=True), divisions),
            )
            if is_there and (found := tried(native)) is not None and found < plain
        ]
        if len(better) == 2:
            tried(both)
    if not made:
        raise failures[rational]
    chosen = min(made, key=lambda native: price(made[native][1].cost))
    return made[chosen], chosen, _record(made, failures, chosen)


def _present(rational: Rewritten) -> tuple[bool, bool]:
    """Whether a circuit has roots, and whether it has other divisions."""
    from odp.backends.ezkl.policy import Native

    roots = Native(roots=True).functions
    functions = {site.function for site in rational.lowered.roots.values()}
    return bool(functions & roots), bool(functions - roots or rational.divisions)


def _record(
    made: Mapping[Native, Made],
    failures: Mapping[Native, OdpError],
    chosen: Native,
) -> dict[str, Any]:
    from odp.backends.ezkl.columns import price
    from odp.backends.ezkl.policy import rows_in_two_columns, rows_of

    places = _places(made)
    by_place = {native: rows_of(compiled, places) for native, (_, compiled) in made.items()}
    sites = [
        {
            "node": node,
            "module": module,
            "function": function,
            "native": function in chosen.functions or (not function and _kept(made[chosen], node)),
            "rows": {str(native): round(found[prefix], 1) for native, found in by_place.items()},
        }
        for prefix, (node, module, function) in places.items()
    ]
    return {
        "native": str(chosen),
        "circuits": {
            str(native): {
                "rows": round(rows_in_two_columns(compiled)),
                "gigabyte_seconds": round(price(compiled.cost) / 1e9, 1),
            }
            for native, (_, compiled) in made.items()
        }
        | {str(native): {"failure": str(error)} for native, error in failures.items()},
        "sites": sites,
    }


def _places(made: Mapping[Native, Made]) -> dict[str, tuple[str, str, str]]:
    """Node, module and function of each root and division, by how the names of its parts begin."""
    found: dict[str, tuple[str, str, str]] = {}
    for rewritten, _ in made.values():
        for site_id, site in rewritten.lowered.roots.items():
            found[f"odp/{site_id}/"] = (site.node, site.module_path, site.function)
    for rewritten, _ in made.values():
        for division in rewritten.divisions:
            name = division.node.name
            if not any(name.startswith(prefix) for prefix in found):
                found[name] = (name, division.node.module, "")
    return found


def _kept(made: Made, name: str) -> bool:
    return any(d.node.name == name and d.approximant is None for d in made[0].divisions)
