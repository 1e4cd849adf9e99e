"""Decoder layers as circuits: compiled side by side, with healed weights, and what they cost."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from odp.approximations.errors import OdpError
from odp.circuits import CompiledModel, compile_circuit

if TYPE_CHECKING:
    from odp.backends.ezkl.integer_program import IntegerProgram
    from odp.healing.rows_record import CircuitCost

__all__ = ["compile_layers", "cost_of", "with_weights"]


def compile_layers(
    paths: Sequence[Path],
    *,
    jobs: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
    **options: Any,
) -> list[CompiledModel]:
    """The circuit of each layer.

    Args:
        paths: of the layers' ONNX models, with their calibration inputs beside them as .npz.
        jobs: layers that are compiled at a time, each in a process of its own.
        progress: called as `progress(layers done, layers in all)`.
        **options: of `odp.circuits.compile_circuit`.

    Raises:
        OdpError: a layer has no circuit with that error; says which.
    """
    found: list[CompiledModel] = []
    progress(0, len(paths))
    if jobs == 1:
        results: Any = (_compiled(path, options) for path in paths)
    else:
        try:
            import joblib
        except ImportError:
            raise OdpError('several jobs need joblib: pip install "odp-rewrite[ezkl]"') from None
        parallel = joblib.Parallel(n_jobs=jobs, return_as="generator")
        results = parallel(joblib.delayed(_compiled)(path, options) for path in paths)
    for number, result in enumerate(results):
        if isinstance(result, str):
            raise OdpError(f"layer {number}: {result}")
        found.append(result)
        progress(len(found), len(paths))
    return found


def _compiled(path: Path, options: dict[str, Any]) -> CompiledModel | str:
    """The circuit of one layer, or why there is none: exceptions of ours do not cross processes."""
    try:
        return compile_circuit(path, calibration=path.with_suffix(".npz"), **options)
    except OdpError as error:
        return " ".join(str(error).split())


def with_weights(layer: CompiledModel, program: IntegerProgram) -> CompiledModel:
    """A circuit with other weights at the same scales, and what it costs now.

    Its error is that of its integers beside the same circuit in real numbers.

    Args:
        layer: as it was compiled.
        program: of `odp.healing.circuit_adapter.healed_program`.
    """
    from odp.backends.ezkl.columns import cheapest, column_options
    from odp.backends.ezkl.memory import machine_memory

    compiled = layer.compiled
    cost = cheapest(column_options(program.to_onnx(), compiled.arguments), machine_memory())
    changed = dataclasses.replace(compiled, program=program, cost=cost, arguments=cost.arguments)
    changed = dataclasses.replace(changed, error=_rounding(program, layer.inputs))
    policy = dict(layer.policy) | {"weights": "healed"}
    return dataclasses.replace(layer, compiled=changed, policy=policy)


def cost_of(layers: Sequence[CompiledModel]) -> CircuitCost:
    """What circuits cost together, and their own errors."""
    from odp.backends.ezkl.columns import price
    from odp.backends.ezkl.policy import rows_in_two_columns
    from odp.healing.rows_record import CircuitCost

    rescaled = products = 0
    expressions: Counter[str] = Counter()
    for layer in layers:
        program = layer.compiled.program
        nodes = program.circuit.nodes
        for number, node in enumerate(nodes):
            if node.value is not None:
                continue
            rescaled += node.elements if program.schedule.rescaled(number) else 0
            variables = sum(nodes[i].value is None for i in node.inputs)
            products += node.elements if node.kind == "mul" and variables == 2 else 0
        records = {record.key: record.description for record in layer.report.approximants}
        expressions.update(
            f"{site.function}: {records[site.approximant]}" for site in layer.report.sites
        )
        expressions.update(
            f"division: {one.approximant.description}"
            for one in layer.divisions
            if one.approximant is not None
        )
    costs = [layer.compiled.cost for layer in layers]
    return CircuitCost(
        rows=sum(rows_in_two_columns(layer.compiled) for layer in layers),
        rescaled=rescaled,
        products=products,
        logrows=[cost.resources.logrows for cost in costs],
        proving_key=sum(cost.resources.proving_key for cost in costs),
        peak_memory=max(cost.resources.peak_memory for cost in costs),
        price=sum(price(cost) for cost in costs),
        errors=[_rounding(layer.compiled.program, layer.inputs) for layer in layers],
        expressions=dict(sorted(expressions.items())),
    )


def _rounding(program: IntegerProgram, inputs: Sequence[Any]) -> float:
    """Largest relative l2 error of the integers beside the same circuit in real numbers.

    Infinite where an integer does not fit.
    """
    from odp.backends.ezkl.compiler import relative_error

    worst = 0.0
    for one in inputs:
        values, overflows = program.simulate(program.quantise(one))
        if overflows:
            return math.inf
        real = program.circuit.evaluate(one)
        wanted = {name: real[number] for name, number in program.circuit.outputs.items()}
        worst = max(worst, relative_error(program.outputs(values), wanted))
    return worst
