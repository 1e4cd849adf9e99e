"""Answers on disk, by content: what was asked, and the source code that would answer it.

One small JSON file for each answer, in the user's cache directory or in ``ODP_CACHE``
(``ODP_CACHE=off`` for none).  A file that cannot be read is ignored and written anew; deleting the
directory is always safe.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, astuple, replace
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from odp.approximations.approximant import Approximant, Parameters
from odp.approximations.arithmetic import FixedPointArithmetic
from odp.approximations.errors import OdpError
from odp.approximations.expression import Expression, expression_from_rows, expression_rows
from odp.approximations.interval import Interval
from odp.approximations.search import SearchProblem

if TYPE_CHECKING:
    from odp.approximations.fixed_point.certified import CertifiedProgram

__all__ = ["directory", "load", "store"]


def directory() -> Path | None:
    """Where answers are kept; None if the user wants none kept."""
    chosen = os.environ.get("ODP_CACHE")
    if chosen is not None and chosen.lower() in ("off", "0", "no", ""):
        return None
    if chosen is not None:
        return Path(chosen)
    from platformdirs import user_cache_path

    return user_cache_path("odp") / "approximants"


@cache
def _library() -> str:
    """A digest of the source code of this package: other code may give another answer."""
    digest = hashlib.sha256()
    room = Path(__file__).parent
    for path in sorted(room.rglob("*.py")):
        digest.update(path.relative_to(room).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _path(problem: SearchProblem, question: str) -> Path | None:
    room = directory()
    if room is None:
        return None
    asked = {
        "library": _library(),
        "question": question,
        # Everything that is declared of it, its source included; only the evaluator has no text.
        "function": repr(problem.function),
        "domain": asdict(problem.domain),
        "tolerance": asdict(problem.tolerance),
        "target": asdict(problem.target),
        "schemes": problem.schemes,
        "parameters": dict(problem.parameters),
        "largest_cost": problem.largest_cost,
    }
    name = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
    return room / name[:2] / f"{name}.json"


def load(problem: SearchProblem, question: str) -> list[Approximant] | None:
    """The answer that was kept, one approximant or a front of them, or None.

    Args:
        problem: what is asked for.
        question: which of the questions about it.
    """
    path = _path(problem, question)
    if path is None:
        return None
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        return [_from_record(record, problem) for record in kept["approximants"]]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, OdpError):
        return None


def store(problem: SearchProblem, question: str, answer: Sequence[Approximant]) -> None:
    """Keep an answer; a directory that cannot be written to keeps none."""
    path = _path(problem, question)
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump({"approximants": [_record(a) for a in answer]}, file)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError:
        return


def _record(approximant: Approximant) -> dict[str, Any]:
    """Everything but the function, which is part of the question."""
    rows = [
        [op, list(operands), name, [value.numerator, value.denominator]]
        for op, operands, name, value in expression_rows(approximant.expression)
    ]
    safe, certified = approximant.safe_interval, approximant.fixed_point
    return {
        "expression": rows,
        "scheme": approximant.scheme,
        "parameters": dict(approximant.parameters),
        "description": approximant.description,
        "absolute_error": approximant.absolute_error,
        "relative_error": approximant.relative_error,
        "error_kind": approximant.error_kind,
        "float32_error": approximant.float32_error,
        "safe_interval": [safe.lo, safe.hi],
        "relative": approximant.relative,
        "has_budget": approximant.tolerance is not None,
        "fixed_point": None if certified is None else _program_record(certified),
    }


def _from_record(record: dict[str, Any], problem: SearchProblem) -> Approximant:
    fields = dict(record)
    expression = _expression(fields.pop("expression"))
    target, certified = problem.target, None
    program_fields = fields.pop("fixed_point")
    if program_fields is not None:
        certified = _program(program_fields, problem, expression)
        bits = FixedPointArithmetic(certified.program.scale, certified.program.guard_bits)
        target = replace(target, arithmetic=bits)
    return Approximant(
        function=problem.function,
        domain=problem.domain,
        target=target,
        tolerance=problem.tolerance if fields.pop("has_budget") else None,
        expression=expression,
        parameters=Parameters(**fields.pop("parameters")),
        safe_interval=Interval(*fields.pop("safe_interval")),
        fixed_point=certified,
        **fields,
    )


def _program_record(certified: CertifiedProgram) -> dict[str, Any]:
    """Everything but the expression, which the approximant has as well."""
    program = certified.program
    return {
        "steps": [astuple(step) for step in program.steps],
        "scale": program.scale,
        "guard_bits": program.guard_bits,
        "input_scale": program.input_scale,
        "lowest": program.lowest,
        "highest": program.highest,
        "certificate": asdict(certified.certificate),
        "relative": certified.relative,
    }


def _program(
    record: dict[str, Any], problem: SearchProblem, expression: Expression
) -> CertifiedProgram:
    from odp.approximations.fixed_point.certified import CertifiedProgram, FixedPointCertificate
    from odp.approximations.fixed_point.program import FixedPointProgram, Step

    fields = dict(record)
    certificate = FixedPointCertificate(**fields.pop("certificate"))
    relative = bool(fields.pop("relative"))
    steps = tuple(Step(*step) for step in fields.pop("steps"))
    program = FixedPointProgram(expression=expression, steps=steps, **fields)
    return CertifiedProgram(program, certificate, problem.function, problem.domain, relative)


def _expression(rows: list[Any]) -> Expression:
    return expression_from_rows(
        [(op, tuple(operands), name, Fraction(*value)) for op, operands, name, value in rows]
    )
