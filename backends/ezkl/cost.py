"""Predict what a graph costs as a circuit of EZKL, without calling EZKL.

report = predict(onnx.load("model.onnx"), RunArguments(input_scale=7, param_scale=7))
report.rows, report.logrows, report.resources.proving_key
"""

from __future__ import annotations

import onnx
import onnx_ir as ir

from odp.backends.ezkl.cost_declutter import declutter
from odp.backends.ezkl.cost_lowering import lower
from odp.backends.ezkl.cost_model import lay_out
from odp.backends.ezkl.cost_report import CostReport, NodeCost, Resources, Unknown
from odp.backends.ezkl.cost_resources import calibrated_logrows, estimate_resources
from odp.backends.ezkl.run_arguments import RunArguments

__all__ = ["CostReport", "NodeCost", "Resources", "RunArguments", "Unknown", "predict"]


def predict(
    model: onnx.ModelProto | ir.Model,
    arguments: RunArguments | None = None,
    logrows: int | None = None,
) -> CostReport:
    """Predict rows, tables, keys, memory and times of a circuit.

    Args:
        model: with static input shapes.
        arguments: EZKL's settings; its defaults where left out. The row count in them decides
            nothing here.
        logrows: log2 of the rows that resources are for; what `calibrate` would choose where left
            out.

    Raises:
        ValueError: where the shape of an input is not static.
    """
    arguments = arguments or RunArguments()
    network = lower(ir.from_proto(model) if isinstance(model, onnx.ModelProto) else model)
    declutter(network)
    region, nodes, unknown, labels = lay_out(network, arguments)

    def sizes(visibility: str) -> list[int]:
        seen = [
            *(network.inputs if arguments.input_visibility == visibility else ()),
            *(network.outputs if arguments.output_visibility == visibility else ()),
        ]
        return [network[number].elements for number in seen]

    instances, committed = sum(sizes("public")), sizes("polycommit")
    calibrated = calibrated_logrows(region, arguments, instances)
    chosen = calibrated if logrows is None else logrows
    return CostReport(
        arguments=arguments,
        nodes=tuple(nodes),
        rows=region.rows,
        assignments=region.coordinate,
        constants=len(region.constants),
        einsum_cells=region.einsum_cells,
        shuffles=region.shuffles,
        shuffle_cells=region.shuffle_cells,
        lookups=tuple(sorted(region.lookups)),
        range_checks=tuple(sorted(region.range_checks)),
        instances=instances,
        logrows=calibrated,
        output_labels=tuple(labels),
        unknown=tuple(unknown),
        resources=estimate_resources(region, arguments, instances, chosen, committed),
        alternatives=tuple(
            estimate_resources(region, arguments, instances, other, committed)
            for other in range(max(chosen - 3, 10), chosen + 2)
            if other != chosen
        ),
    )
