"""Operators of torch, in the namespace `odp`, made from the registry of kernels.

Each has a fake kernel for tracing and an autograd rule, whose backward is an operator of its own;
how its open functions are computed stands in the call as text, so that an exported graph needs
nothing else.  Importing this module defines them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch

from odp.approximations.errors import OdpError
from odp.backends.triton.devices import check_device
from odp.backends.triton.launch import DIVISIONS, result_like, run_kernel
from odp.kernels.functions import KernelFunction
from odp.kernels.kernel import Kernel
from odp.kernels.operator import Operand, Operator
from odp.kernels.registry import OPERATORS

__all__ = ["DTYPES", "DefinedOperator", "defined", "result_dtype"]

DTYPES = (torch.bfloat16, torch.float16, torch.float32)
"""Types that kernels read and write; torch code on a CPU also takes float64."""

_CONTROLS = ("division", "exact")


class DefinedOperator:
    """One operator of the registry as two operators of torch.

    Attributes:
        operator: its declaration.
        forward: ``torch.ops.odp.<name>``.
        backward: ``torch.ops.odp.<name>_backward``; None where there is no derivative.
    """

    def __init__(self, operator: Operator) -> None:
        self.operator = operator
        self.forward = torch.library.custom_op(
            f"odp::{operator.name}", mutates_args=(), schema=self._schema()
        )(self._run_forward)
        self.forward.register_fake(self._fake_forward)
        self.backward = None
        if operator.backward is not None:
            self.backward = torch.library.custom_op(
                f"odp::{operator.name}_backward", mutates_args=(), schema=self._backward_schema()
            )(self._run_backward)
            self.backward.register_fake(self._fake_backward)
            self.forward.register_autograd(self._differentiate, setup_context=self._remember)

    def _parameters(self) -> list[str]:
        operator = self.operator
        return [
            *(f"Tensor{'?' if o.optional else ''} {o.name}" for o in operator.operands),
            *(f"float {name}" for name in operator.scalars),
            *(f"int {name}" for name in operator.integers),
            *(f"str {name}" for name in operator.functions),
            *("str division", "bool exact"),
        ]

    @property
    def _results(self) -> tuple[tuple[str, str], ...]:
        return self.operator.outputs[: self.operator.results]

    def _schema(self) -> str:
        outputs = ", ".join("Tensor" for _ in self.operator.outputs)
        returned = outputs if len(self.operator.outputs) == 1 else f"({outputs})"
        return f"({', '.join(self._parameters())}) -> {returned}"

    def _backward_schema(self) -> str:
        incoming = [f"Tensor d_{name}" for name, _ in self._results]
        saved = [f"Tensor saved_{name}" for name in self.operator.saved]
        outputs = ", ".join("Tensor" for _ in self.differentiable)
        returned = outputs if len(self.differentiable) == 1 else f"({outputs})"
        parameters = [*incoming, *saved, *self._parameters(), "bool[] wanted"]
        return f"({', '.join(parameters)}) -> {returned}"

    @property
    def differentiable(self) -> tuple[Operand, ...]:
        """Operands that have a gradient."""
        return tuple(operand for operand in self.operator.operands if operand.differentiable)

    def _named(self, arguments: Sequence[Any]) -> dict[str, Any]:
        operator = self.operator
        names = [
            *(operand.name for operand in operator.operands),
            *(*operator.scalars, *operator.integers, *operator.functions, *_CONTROLS),
        ]
        return dict(zip(names, arguments, strict=True))

    def _kernel_operands(self, named: Mapping[str, Any]) -> dict[str, Any]:
        names = (
            *(operand.name for operand in self.operator.operands),
            *self.operator.scalars,
            *self.operator.integers,
        )
        return {name: named[name] for name in names if named[name] is not None}

    def _functions(self, named: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
        return tuple((name, named[name]) for name in self.operator.functions)

    def _given(self, named: Mapping[str, Any]) -> frozenset[str]:
        return frozenset(o.name for o in self.operator.operands if named[o.name] is not None)

    def shape(self, named: Mapping[str, Any]) -> tuple[int, ...]:
        """The shape of element-wise results: what all operands broadcast to.

        Raises:
            OdpError: they do not.
        """
        elements = [
            tuple(named[o.name].shape)
            for o in self.operator.operands
            if o.kind == "elements" and named[o.name] is not None
        ]
        return tuple(torch.broadcast_shapes(*elements))  # type: ignore[no-untyped-call]

    def _dtypes(
        self, outputs: Sequence[tuple[str, str]], named: Mapping[str, Any]
    ) -> list[torch.dtype]:
        own = self.operator.dtypes or {}
        common = result_dtype(self._tensors(named))
        wide = torch.float64 if common == torch.float64 else torch.float32
        return [
            getattr(torch, own[name]) if name in own else wide if kind == "row" else common
            for name, kind in outputs
        ]

    def _tensors(self, named: Mapping[str, Any]) -> list[torch.Tensor]:
        kinds = ("elements", "column")
        tensors = (named[o.name] for o in self.operator.operands if o.kind in kinds)
        return [tensor for tensor in tensors if tensor is not None]

    def _run_forward(self, *arguments: Any) -> Any:
        named = self._named(arguments)
        kernel = _forward_kernel(self.operator, self._functions(named), self._given(named))
        results = run_kernel(
            kernel,
            self._kernel_operands(named),
            self.shape(named),
            self._dtypes(self.operator.outputs, named),
            named["division"],
        )
        return results[0] if len(results) == 1 else tuple(results)

    def _fake_forward(self, *arguments: Any) -> Any:
        named = self._named(arguments)
        shape, outputs = self.shape(named), self.operator.outputs
        first = self._tensors(named)[0]
        kernel = _forward_kernel(self.operator, self._functions(named), self._given(named))
        like = result_like(kernel, self._kernel_operands(named), shape)
        results = [
            first.new_empty(shape if kind == "elements" else shape[:-1], dtype=dtype)
            if like is None
            else torch.empty_like(like, dtype=dtype)
            for (_, kind), dtype in zip(outputs, self._dtypes(outputs, named), strict=True)
        ]
        return results[0] if len(results) == 1 else tuple(results)

    def _remember(self, ctx: Any, inputs: Sequence[Any], output: Any) -> None:
        results = (output,) if isinstance(output, torch.Tensor) else output
        named = self._named(inputs)
        names = [o.name for o in self.operator.operands]
        by_name = dict(zip([name for name, _ in self.operator.outputs], results, strict=True))
        ctx.save_for_backward(
            *(named[name] for name in names), *(by_name[name] for name in self.operator.saved)
        )
        # Results that are for the derivative alone have no gradient of their own.
        ctx.mark_non_differentiable(*results[self.operator.results :])
        ctx.rest = inputs[len(names) :]

    def _differentiate(self, ctx: Any, *incoming: torch.Tensor | None) -> Any:
        operands = ctx.saved_tensors[: len(self.operator.operands)]
        saved = ctx.saved_tensors[len(operands) :]
        wanted = [
            ctx.needs_input_grad[position] and operands[position] is not None
            for position, operand in enumerate(self.operator.operands)
            if operand.differentiable
        ]
        assert self.backward is not None
        found = self.backward(
            *incoming[: self.operator.results], *saved, *operands, *ctx.rest, wanted
        )
        gradients = iter((found,) if isinstance(found, torch.Tensor) else found)
        by_operand = [
            (next(gradients) if operand.differentiable else None)
            for operand in self.operator.operands
        ]
        flags = iter(wanted)
        by_operand = [
            gradient if operand.differentiable and next(flags) else None
            for gradient, operand in zip(by_operand, self.operator.operands, strict=True)
        ]
        return (*by_operand, *(None for _ in ctx.rest))

    def _parts(self, arguments: Sequence[Any]) -> tuple[dict[str, Any], dict[str, Any], list[bool]]:
        """Incoming and saved tensors, the forward arguments by name, and what is wanted."""
        results, saved = self.operator.results, self.operator.saved
        incoming = dict(zip((f"d_{name}" for name, _ in self._results), arguments, strict=False))
        kept = dict(zip(saved, arguments[results : results + len(saved)], strict=True))
        named = self._named(arguments[results + len(saved) : -1])
        return {**incoming, **kept}, named, list(arguments[-1])

    def _wanted_kernel(self, named: Mapping[str, Any], flags: Sequence[bool]) -> Kernel:
        wanted = frozenset(
            operand.name for operand, flag in zip(self.differentiable, flags, strict=True) if flag
        )
        return _backward_kernel(
            self.operator, self._functions(named), self._given(named), wanted, named["exact"]
        )

    def _run_backward(self, *arguments: Any) -> Any:
        others, named, flags = self._parts(arguments)
        shape = self.shape(named)
        kernel = self._wanted_kernel(named, flags)
        found: dict[str, torch.Tensor] = {}
        if kernel.outputs:
            operands = {**self._kernel_operands(named), **others}
            dtypes = [named[output.name.removeprefix("d_")].dtype for output in kernel.outputs]
            results = run_kernel(kernel, operands, shape, dtypes, named["division"])
            found = {
                o.name.removeprefix("d_"): r for o, r in zip(kernel.outputs, results, strict=True)
            }
        gradients = []
        for operand in self.differentiable:
            tensor = named[operand.name]
            if operand.name not in found:
                gradients.append(next(iter(others.values())).new_empty(0))
                continue
            # What was broadcast gets the sum over what it was broadcast to.
            gradient = found[operand.name]
            if operand.kind == "elements" and tensor.shape != gradient.shape:
                gradient = gradient.sum_to_size(tensor.shape).contiguous()
            gradients.append(gradient)
        distinct = _distinct(gradients)
        return distinct[0] if len(distinct) == 1 else tuple(distinct)

    def _fake_backward(self, *arguments: Any) -> Any:
        others, named, flags = self._parts(arguments)
        shape = self.shape(named)
        kernel = self._wanted_kernel(named, flags)
        like = result_like(kernel, {**self._kernel_operands(named), **others}, shape)
        nothing = next(iter(others.values())).new_empty(0)
        gradients = []
        for operand, flag in zip(self.differentiable, flags, strict=True):
            tensor = named[operand.name]
            if not flag:
                gradients.append(torch.empty_like(nothing))
            elif like is not None and tuple(tensor.shape) == shape:
                gradients.append(torch.empty_like(like, dtype=tensor.dtype))
            else:
                contiguous = torch.contiguous_format
                gradients.append(torch.empty_like(tensor, memory_format=contiguous))
        return gradients[0] if len(gradients) == 1 else tuple(gradients)

    def check(self, tensors: Sequence[torch.Tensor | None], division: str) -> None:
        """Refuse what no kernel takes.

        Args:
            tensors: the operands, in order.
            division: how kernels divide.

        Raises:
            OdpError: one line that names the operator and the operand.
        """
        name = self.operator.name
        named = {o.name: x for o, x in zip(self.operator.operands, tensors, strict=True)}
        first = self._tensors(named)[0]
        check_device(name, first.device)
        if division not in DIVISIONS:
            raise OdpError(
                f"{name}: division is {', '.join(DIVISIONS[:-1])} or {DIVISIONS[-1]}, "
                f"not '{division}'"
            )
        allowed = (*DTYPES, torch.float64) if first.device.type == "cpu" else DTYPES
        for operand in self.operator.operands:
            tensor = named[operand.name]
            if tensor is None:
                continue
            if tensor.device != first.device:
                raise OdpError(
                    f"{name}: {operand.name} is on {tensor.device}, "
                    f"{self.operator.operands[0].name} on {first.device}; move them together"
                )
            if operand.kind != "row_integer" and tensor.dtype not in allowed:
                known = ", ".join(str(dtype).removeprefix("torch.") for dtype in allowed)
                raise OdpError(
                    f"{name}: {operand.name} is {str(tensor.dtype).removeprefix('torch.')}; "
                    f"kernels take {known}"
                )
        self._check_shapes(named)

    def _check_shapes(self, named: Mapping[str, Any]) -> None:
        name = self.operator.name
        try:
            shape = self.shape(named)
        except RuntimeError:
            shapes = ", ".join(
                f"{o.name} {list(named[o.name].shape)}"
                for o in self.operator.operands
                if o.kind == "elements" and named[o.name] is not None
            )
            raise OdpError(f"{name}: shapes do not broadcast: {shapes}") from None
        if not shape:
            raise OdpError(f"{name}: a number has no rows; give it a shape of [1]")
        for operand in self.operator.operands:
            tensor = named[operand.name]
            wanted = {"column": shape[-1:], "row_integer": shape[:-1], "row": shape[:-1]}
            if tensor is not None and tuple(tensor.shape) != wanted.get(operand.kind, tensor.shape):
                raise OdpError(
                    f"{name}: {operand.name} has the shape {list(tensor.shape)}; with "
                    f"{self.operator.operands[0].name} of {list(shape)} it must be "
                    f"{list(wanted[operand.kind])}"
                )


def result_dtype(tensors: Sequence[torch.Tensor]) -> torch.dtype:
    """The type that torch promotes operands to."""
    dtype = tensors[0].dtype
    for tensor in tensors[1:]:
        # A call of promote_types becomes a node of an exported graph.
        if tensor.dtype != dtype:
            dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype


def _distinct(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Tensors that share no memory, as results of an operator must not."""
    seen: set[int] = set()
    found = []
    for tensor in tensors:
        fresh = tensor.clone() if tensor.numel() and tensor.data_ptr() in seen else tensor
        seen.add(fresh.data_ptr())
        found.append(fresh)
    return found


def _by_name(texts: Sequence[tuple[str, str]]) -> dict[str, KernelFunction]:
    functions = {name: KernelFunction.parse(text) for name, text in texts}
    for name, function in functions.items():
        if function.function != name:
            raise OdpError(
                f"a function for {name} is wanted, and this is one for {function.function}"
            )
    return functions


@lru_cache(maxsize=1024)
def _forward_kernel(
    operator: Operator, functions: tuple[tuple[str, str], ...], given: frozenset[str]
) -> Kernel:
    return operator.forward_kernel(_by_name(functions), given)


@lru_cache(maxsize=1024)
def _backward_kernel(
    operator: Operator,
    functions: tuple[tuple[str, str], ...],
    given: frozenset[str],
    wanted: frozenset[str],
    exact: bool,
) -> Kernel:
    return operator.backward_kernel(_by_name(functions), given, wanted, exact)


defined: Mapping[str, DefinedOperator] = {
    name: DefinedOperator(operator) for name, operator in OPERATORS.items()
}
"""Every operator of the registry, defined in torch."""
