"""Every kernel of the registry as source; nothing in here imports torch."""

from __future__ import annotations

from odp.kernels.functions import kernel_function
from odp.kernels.kernel import Layout
from odp.kernels.registry import OPERATORS
from odp.kernels.triton_source import triton_kernel

__all__ = ["all_sources"]


def all_sources() -> str:
    """Of every operator, forward and backward, in one row after the other."""
    found = []
    for operator in OPERATORS.values():
        functions = {f: kernel_function(f, 1e-4) for f in operator.functions}
        given = frozenset(o.name for o in operator.operands)
        kernels = [operator.forward_kernel(functions, given)]
        if operator.backward is not None:
            wanted = frozenset(o.name for o in operator.operands if o.differentiable)
            kernels += [
                operator.backward_kernel(functions, given, wanted, exact) for exact in (False, True)
            ]
        found += [triton_kernel(kernel, Layout(1)) for kernel in kernels]
    return "".join(found)
