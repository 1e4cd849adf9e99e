"""What else a user could run on the same file, one tool in one process.

    python benchmarks/rivals.py onnxscript-rewriter model.onnx

prints the seconds from reading the file to having written the result.  None of them does the job
of ODP; each does one part of it:

- `onnxscript-rewriter`: pattern rules that put one fixed polynomial in the place of every Exp,
  Sqrt, Erf, Sigmoid and Softmax, without domains, composites or a lower opset (match, rewrite);
- `onnxscript-optimizer`, `onnxsim`: constant folding and dead code (simplify);
- `graphsurgeon`: import, clean up, sort and export: no rewriting at all (load and save).
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import onnx

_COEFFICIENTS = [0.5, 0.25, 0.01, 0.002, 0.0003, 0.00004, 0.000005]


def _onnxscript_rewriter(source: Path, target: Path) -> None:
    import onnx_ir as ir
    from onnxscript.rewriter import RewriteRule, rewrite

    def polynomial(op: Any, x: Any) -> Any:
        result = op.Constant(value_float=_COEFFICIENTS[-1])
        for coefficient in reversed(_COEFFICIENTS[:-1]):
            result = op.Add(op.Mul(result, x), op.Constant(value_float=coefficient))
        return result

    def softmax_by_polynomial(op: Any, x: Any) -> Any:
        weights = polynomial(op, x)
        return op.Div(weights, op.ReduceSum(weights, op.Constant(value_ints=[-1]), keepdims=1))

    def pattern_of(kind: str) -> Callable[[Any, Any], Any]:
        return lambda op, x: getattr(op, kind)(x)

    rules = [
        RewriteRule(pattern_of(kind), polynomial) for kind in ("Exp", "Sqrt", "Erf", "Sigmoid")
    ]
    rules.append(RewriteRule(lambda op, x: op.Softmax(x, axis=-1), softmax_by_polynomial))
    ir.save(rewrite(ir.load(source), pattern_rewrite_rules=rules), target)


def _onnxscript_optimizer(source: Path, target: Path) -> None:
    import onnx_ir as ir
    from onnxscript import optimizer

    model = ir.load(source)
    optimizer.optimize(model)
    ir.save(model, target)


def _onnxsim(source: Path, target: Path) -> None:
    import onnxsim

    simplified, _ = onnxsim.simplify(onnx.load(source), perform_optimization=False)
    onnx.save(simplified, target)


def _graphsurgeon(source: Path, target: Path) -> None:
    import onnx_graphsurgeon as gs

    graph = gs.import_onnx(onnx.load(source))
    onnx.save(gs.export_onnx(graph.cleanup().toposort()), target)


TOOLS: dict[str, Callable[[Path, Path], None]] = {
    "onnxscript-rewriter": _onnxscript_rewriter,
    "onnxscript-optimizer": _onnxscript_optimizer,
    "onnxsim": _onnxsim,
    "graphsurgeon": _graphsurgeon,
}


@click.command()
@click.argument("tool", type=click.Choice(sorted(TOOLS)))
@click.argument("model", type=click.Path(path_type=Path, exists=True))
def main(tool: str, model: Path) -> None:
    """Run one tool on one file and print JSON."""
    from transformer_graph import transformer_model

    with tempfile.TemporaryDirectory(prefix="odp-benchmark-") as name:
        folder = Path(name)
        # Imports are not what is compared.
        onnx.save(transformer_model(100), folder / "small.onnx")
        TOOLS[tool](folder / "small.onnx", folder / "out.onnx")
        wall, cpu = time.perf_counter(), time.process_time()
        TOOLS[tool](model, folder / "out.onnx")
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        left = {node.op_type for node in onnx.load(folder / "out.onnx").graph.node}
    print(json.dumps({"seconds": wall, "processor_seconds": cpu, "operators": sorted(left)}))


if __name__ == "__main__":
    main()
