"""The Loop of onnx.reference, with two defects of onnx 1.23 mended.

A Loop without a condition does not run at all there, although it should run all its trips; and
results that are collected over the trips are joined along their first axis, not stacked along a new
one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx.reference.ops.op_loop import Loop as _Loop

__all__ = ["Loop"]


class Loop(_Loop):  # type: ignore[misc]
    """Give this class to `ReferenceEvaluator(new_ops=...)`; it goes by its name and domain."""

    op_domain = ""

    def __init__(self, node: Any, parameters: dict[str, Any]) -> None:
        super().__init__(node, parameters)
        # The base class sets this attribute on every instance, so a method would be shadowed.
        run_body = getattr(self, "_run_body")  # noqa: B009
        self._collected: list[list[Any]] = []

        def collecting(inputs: Any, **options: Any) -> list[Any]:
            outputs: list[Any] = run_body(inputs, **options)
            self._collected.append(outputs)
            return outputs

        self._run_body = collecting

    def _run(self, trips: Any, condition: Any, *states: Any, **context: Any) -> tuple[Any, ...]:
        self._collected.clear()
        condition = np.array(True) if condition is None else condition
        results = list(super()._run(trips, condition, *states, **context))
        for index in range(self.K if self._collected else 0):
            stacked = np.stack([outputs[1 + self.N + index] for outputs in self._collected])
            results[self.N + index] = stacked
        return tuple(results)
