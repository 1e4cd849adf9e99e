"""A traced module as a pure function of its tensors and inputs, and a graph that passes rewrite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx
from torch.export.graph_signature import InputKind, OutputKind
from torch.utils import _pytree as pytree

from odp.approximations.errors import OdpError
from odp.rewriter.fx_evaluation import Binding
from odp.rewriter.fx_graph import FxGraph

__all__ = ["Leaf", "Program", "ProgramSignature", "module_of"]


@dataclass(frozen=True)
class Leaf:
    """One leaf among the inputs of a program.

    Attributes:
        name: for messages, such as `attention_mask`.
        extents: of a tensor: a number where it is static, the name of a size where it is not; None
            for anything but a tensor.
        constant: the value that a leaf which is no tensor had during export.
    """

    name: str
    extents: tuple[int | str, ...] | None
    constant: Any = None


@dataclass(frozen=True)
class ProgramSignature:
    """How to call a program: everything but its graph.

    Attributes:
        arguments: names of the parameters of `forward` that were given, in order.
        tensors: dotted names of the parameters and buffers, in the order of their placeholders.
        leaves: the flattened inputs, in the order of their placeholders.
        input_spec: structure of the values of `arguments`, as a list.
        output_spec: structure of the results.
        written: dotted names of the buffers that the graph writes; their new values are its first
            results.
        limits: smallest and largest value of the sizes that vary, by their name in `leaves`.
    """

    arguments: tuple[str, ...]
    tensors: tuple[str, ...]
    leaves: tuple[Leaf, ...]
    input_spec: pytree.TreeSpec
    output_spec: pytree.TreeSpec
    written: tuple[str, ...]
    limits: Mapping[str, tuple[int, int]]

    def flatten(self, values: Sequence[Any]) -> list[Any]:
        """The leaves of the values of `arguments`, checked.

        Raises:
            OdpError: an input has a structure, type, rank or size for which the graph would
                compute nonsense.
        """
        found, spec = pytree.tree_flatten(list(values))
        if spec != self.input_spec:
            raise OdpError(
                f"inputs ({', '.join(self.arguments)}) are nested otherwise than the example "
                "inputs were: containers and their lengths must be the same"
            )
        sizes: dict[str, int] = {}
        for leaf, value in zip(self.leaves, found, strict=True):
            if leaf.extents is not None:
                _check_tensor(leaf.name, leaf.extents, value, sizes, self.limits)
            elif value != leaf.constant:
                raise OdpError(
                    f"input '{leaf.name}' is {value!r}, but the module was exported with "
                    f"{leaf.constant!r}; rewrite it again with the new value in example_inputs"
                )
        return found


@dataclass(frozen=True)
class Program:
    """What torch.export found out about a module, ready to be rewritten and run.

    Attributes:
        graph: the view that passes work on; its placeholders are the tensors, then the inputs.
        signature: how to call it.
    """

    graph: FxGraph
    signature: ProgramSignature

    @classmethod
    def of(cls, exported: torch.export.ExportedProgram, arguments: Mapping[str, Any]) -> Program:
        """Take an exported program apart, functional as `export.taken_apart` leaves it.

        Args:
            exported: the program; its graph module is used, not copied.
            arguments: the example inputs by the names of the parameters of `forward`.

        Raises:
            OdpError: the program has inputs or outputs that are no tensors of the module.
        """
        module = exported.graph_module
        for part in module.modules():
            if isinstance(part, fx.GraphModule):
                # The tracer of torch.export cannot be made again by pickle; a traced graph needs
                # none.
                part._tracer_cls = part.graph._tracer_cls = None
        natives = {n.name: n for n in module.graph.nodes if n.op == "placeholder"}
        bindings: dict[str, Binding] = {}
        tensors: list[str] = []
        leaves: list[Leaf] = []
        for spec in exported.graph_signature.input_specs:
            native = natives[spec.arg.name]
            if spec.kind == InputKind.USER_INPUT:
                leaves.append(_leaf(native))
            elif spec.kind == InputKind.CONSTANT_TENSOR:
                # Not an attribute of the module that a state_dict knows: part of the program.
                _keep(module, native, str(spec.target), exported.constants[str(spec.target)])
            elif spec.kind in (InputKind.PARAMETER, InputKind.BUFFER):
                target = str(spec.target)
                fixed = spec.kind == InputKind.BUFFER and not spec.persistent
                stored = exported.constants if fixed else exported.state_dict
                bindings[native.name] = Binding(stored[target], fixed)
                tensors.append(target)
            else:
                raise OdpError(f"input '{native.name}' is a {spec.kind.name}: nothing ODP handles")
        assert exported.call_spec.out_spec is not None
        signature = ProgramSignature(
            arguments=tuple(arguments),
            tensors=tuple(tensors),
            leaves=tuple(leaves),
            input_spec=pytree.tree_flatten(list(arguments.values()))[1],
            output_spec=exported.call_spec.out_spec,
            written=_written(exported),
            limits=_limits(exported),
        )
        return cls(FxGraph(module, bindings), signature)


def module_of(exported: torch.export.ExportedProgram) -> torch.nn.Module:
    """The module of an exported program, without the submodule in which torch checks inputs."""
    return exported.module(check_guards=False)


def _leaf(native: fx.Node) -> Leaf:
    value = native.meta.get("val")
    if not isinstance(value, torch.Tensor):
        return Leaf(native.name, None, value)
    extents = (extent if isinstance(extent, int) else str(extent) for extent in value.shape)
    return Leaf(native.name, tuple(extents))


def _limits(exported: torch.export.ExportedProgram) -> dict[str, tuple[int, int]]:
    ranges = exported.range_constraints.items()
    return {str(name): (int(found.lower), int(found.upper)) for name, found in ranges}


def _written(exported: torch.export.ExportedProgram) -> tuple[str, ...]:
    written = []
    for output in exported.graph_signature.output_specs:
        if output.kind == OutputKind.BUFFER_MUTATION:
            written.append(str(output.target))
        elif output.kind != OutputKind.USER_OUTPUT:
            raise OdpError(
                f"the module writes to its input '{output.target}' ({output.kind.name}); "
                "clone that input in forward first"
            )
    return tuple(written)


def _check_tensor(
    name: str,
    extents: Sequence[int | str],
    value: Any,
    sizes: dict[str, int],
    limits: Mapping[str, tuple[int, int]],
) -> None:
    if not isinstance(value, torch.Tensor):
        raise OdpError(f"input '{name}' must be a tensor, not a {type(value).__name__}")
    if value.dim() != len(extents):
        shape = ", ".join(str(extent) for extent in extents)
        raise OdpError(
            f"input '{name}' has shape {list(value.shape)}; the module was exported for [{shape}]"
        )
    for axis, extent in enumerate(extents):
        found = value.shape[axis]
        wanted = extent if isinstance(extent, int) else sizes.setdefault(extent, found)
        if found != wanted:
            raise OdpError(
                f"input '{name}' has size {found} along axis {axis}; the module was exported for "
                f"{wanted}; pass dynamic_shapes to odp.rewrite for sizes that vary"
            )
        low, high = limits.get(str(extent), (found, found))
        if not low <= found <= high:
            raise OdpError(
                f"input '{name}' has size {found} along axis {axis}; dynamic_shapes allows "
                f"{low} to {high}"
            )


def _keep(module: fx.GraphModule, native: fx.Node, target: str, constant: Any) -> None:
    """Turn a placeholder into a buffer of the graph module that no state_dict mentions."""
    if not isinstance(constant, torch.Tensor):
        raise OdpError(f"constant '{target}' is a {type(constant).__name__}, not a tensor")
    name = f"odp_tensor_{target.replace('.', '_')}"
    module.register_buffer(name, constant, persistent=False)
    last = [node for node in module.graph.nodes if node.op == "placeholder"][-1]
    with module.graph.inserting_after(last):
        stored = module.graph.get_attr(name)
    stored.meta.update(native.meta)
    native.replace_all_uses_with(stored)
    module.graph.erase_node(native)
    for user in list(stored.users):
        # torch.tensor(...) in a forward is a copy; nothing writes to it in a functional graph.
        is_result = any(reader.op == "output" for reader in user.users)
        if user.target is torch.ops.aten.clone.default and not is_result:
            user.replace_all_uses_with(stored)
            module.graph.erase_node(user)
