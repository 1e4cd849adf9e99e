"""What an opset allows: every node against its operator schema, types included."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import onnx
import onnx_ir as ir

__all__ = [
    "formal_parameter",
    "schema_of",
    "schema_violations",
    "type_name",
    "violated_type_variables",
]


@functools.cache
def schema_of(op_type: str, version: int, domain: str = "") -> onnx.defs.OpSchema | None:
    """Return the schema that an operator has in an opset, or None where it does not exist.

    Deprecated operators do not exist: ONNX Runtime may refuse them.

    Example:
        >>> schema_of("Gelu", 12) is None, schema_of("Gelu", 20).since_version
        (True, 20)
    """
    try:
        schema = onnx.defs.get_schema(op_type, version, domain)
    except onnx.defs.SchemaError:
        return None
    return None if schema.deprecated else schema


def type_name(value: ir.Value | None) -> str | None:
    """Return the type of a value as schemas spell it, for example `tensor(float)`."""
    if value is None or value.type is None:
        return None
    return _type_name(value.type)


def _type_name(type_: ir.TypeProtocol) -> str | None:
    if isinstance(type_, ir.TensorType):
        return _tensor_type_name(type_.dtype)
    if isinstance(type_, ir.SequenceType):
        inner = _type_name(type_.elem_type)
        return inner and f"seq({inner})"
    if isinstance(type_, ir.OptionalType):
        inner = _type_name(type_.elem_type)
        return inner and f"optional({inner})"
    return None


@functools.cache
def _tensor_type_name(dtype: ir.DataType) -> str | None:
    names = {"FLOAT": "float", "DOUBLE": "double", "UNDEFINED": None}
    name = names.get(dtype.name, dtype.name.lower())
    return name and f"tensor({name})"


def formal_parameter(
    formal: Sequence[onnx.defs.OpSchema.FormalParameter], index: int
) -> onnx.defs.OpSchema.FormalParameter:
    """Return the formal parameter of an actual one; the last formal one may be variadic."""
    return formal[min(index, len(formal) - 1)]


@dataclass(frozen=True)
class _Signature:
    """The allowed types of the parameters of a schema, as plain tuples.

    Every access to a schema builds new Python objects from C++: reading it for each node was most
    of the time of a check.  The last parameter of each list may be variadic.
    """

    inputs: tuple[tuple[str, frozenset[str]], ...]
    outputs: tuple[tuple[str, frozenset[str]], ...]
    variadic_inputs: bool
    variadic_outputs: bool
    attributes: frozenset[str]
    arity: tuple[int, int, int, int]


@functools.cache
def _signature(schema: onnx.defs.OpSchema) -> _Signature:
    constraints = {
        c.type_param_str: frozenset(c.allowed_type_strs) for c in schema.type_constraints
    }
    variadic = onnx.defs.OpSchema.FormalParameterOption.Variadic
    inputs, outputs = list(schema.inputs), list(schema.outputs)

    def types(
        formal: Sequence[onnx.defs.OpSchema.FormalParameter],
    ) -> tuple[tuple[str, frozenset[str]], ...]:
        return tuple(
            (p.type_str, constraints.get(p.type_str, frozenset({p.type_str}))) for p in formal
        )

    return _Signature(
        inputs=types(inputs),
        outputs=types(outputs),
        variadic_inputs=bool(inputs) and inputs[-1].option == variadic,
        variadic_outputs=bool(outputs) and outputs[-1].option == variadic,
        attributes=frozenset(schema.attributes),
        arity=(schema.min_input, schema.max_input, schema.min_output, schema.max_output),
    )


def violated_type_variables(
    schema: onnx.defs.OpSchema, node: ir.Node
) -> dict[str, tuple[str, frozenset[str]]]:
    """Find the type variables of a schema that a node binds to a type outside their constraint.

    Returns:
        Type variable (`T`) or parameter type (`tensor(int64)`) -> (actual type, allowed types).
        Values of unknown type are not violations.
    """
    signature = _signature(schema)
    violations: dict[str, tuple[str, frozenset[str]]] = {}
    for formal, variadic, values in (
        (signature.inputs, signature.variadic_inputs, node.inputs),
        (signature.outputs, signature.variadic_outputs, node.outputs),
    ):
        for index, value in enumerate(values if formal else ()):
            if value is None or not value.name or (index >= len(formal) and not variadic):
                continue
            actual = type_name(value)
            variable, allowed = formal[min(index, len(formal) - 1)]
            if actual is not None and actual not in allowed:
                violations[variable] = actual, allowed
    return violations


def schema_violations(node: ir.Node, version: int) -> list[str]:
    """List why a node is not legal in an opset of its domain; empty when it is.

    Checked are: existence, number of inputs and outputs, attribute names, and input and output
    types where they are known.

    Args:
        node: the node.
        version: version of the node's domain.

    Returns:
        Reasons, each a short clause.
    """
    schema = schema_of(node.op_type, version, node.domain)
    if schema is None:
        domain = node.domain or "ai.onnx"
        return [f"{domain} has no operator {node.op_type} in opset {version}"]
    reasons = []
    inputs = _used(node.inputs)
    outputs = _used(node.outputs)
    signature = _signature(schema)
    min_input, max_input, min_output, max_output = signature.arity
    if not min_input <= inputs <= max_input:
        reasons.append(f"{inputs} inputs, opset {version} takes at most {max_input}")
    if not min_output <= outputs <= max_output:
        reasons.append(f"{outputs} outputs, opset {version} gives at most {max_output}")
    unknown = sorted(set(node.attributes) - signature.attributes)
    if unknown:
        reasons.append(f"attribute {', '.join(unknown)} does not exist in opset {version}")
    for actual, allowed in violated_type_variables(schema, node).values():
        reasons.append(
            f"type {actual} is not supported in opset {version} ({_abbreviate(allowed)})"
        )
    return reasons


def _used(values: Sequence[ir.Value | None]) -> int:
    """Count parameters up to the last one that is present."""
    present = [i for i, v in enumerate(values, 1) if v is not None and (v.name or v.uses())]
    return present[-1] if present else 0


def _abbreviate(allowed: frozenset[str]) -> str:
    names = sorted(name.removeprefix("tensor(").removesuffix(")") for name in allowed)
    return "only " + ", ".join(names) if len(names) <= 6 else f"{len(names)} other types"
