"""What an opset allows: every node against its operator schema, types included."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

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
    if isinstance(type_, ir.SequenceType):
        inner = _type_name(type_.elem_type)
        return inner and f"seq({inner})"
    if isinstance(type_, ir.OptionalType):
        inner = _type_name(type_.elem_type)
        return inner and f"optional({inner})"
    if isinstance(type_, ir.TensorType):
        names = {"FLOAT": "float", "DOUBLE": "double", "UNDEFINED": None}
        name = names.get(type_.dtype.name, type_.dtype.name.lower())
        return name and f"tensor({name})"
    return None


def formal_parameter(
    formal: Sequence[onnx.defs.OpSchema.FormalParameter], index: int
) -> onnx.defs.OpSchema.FormalParameter:
    """Return the formal parameter of an actual one; the last formal one may be variadic."""
    return formal[min(index, len(formal) - 1)]


def _parameters(
    schema: onnx.defs.OpSchema, node: ir.Node
) -> Iterator[tuple[onnx.defs.OpSchema.FormalParameter, ir.Value | None, str]]:
    variadic = onnx.defs.OpSchema.FormalParameterOption.Variadic
    for kind, formal, actual in (
        ("input", schema.inputs, node.inputs),
        ("output", schema.outputs, node.outputs),
    ):
        for index, value in enumerate(actual):
            if not formal:
                continue
            parameter = formal_parameter(formal, index)
            if index >= len(formal) and parameter.option != variadic:
                continue
            yield parameter, value, kind


def violated_type_variables(
    schema: onnx.defs.OpSchema, node: ir.Node
) -> dict[str, tuple[str, frozenset[str]]]:
    """Find the type variables of a schema that a node binds to a type outside their constraint.

    Returns:
        Type variable (`T`) or parameter type (`tensor(int64)`) -> (actual type, allowed types).
        Values of unknown type are not violations.
    """
    constraints = {
        c.type_param_str: frozenset(c.allowed_type_strs) for c in schema.type_constraints
    }
    violations: dict[str, tuple[str, frozenset[str]]] = {}
    for parameter, value, _ in _parameters(schema, node):
        actual = type_name(value)
        if actual is None or (value is not None and not value.name):
            continue
        allowed = constraints.get(parameter.type_str, frozenset({parameter.type_str}))
        if actual not in allowed:
            violations[parameter.type_str] = actual, allowed
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
    if not schema.min_input <= inputs <= schema.max_input:
        reasons.append(f"{inputs} inputs, opset {version} takes at most {schema.max_input}")
    if not schema.min_output <= outputs <= schema.max_output:
        reasons.append(f"{outputs} outputs, opset {version} gives at most {schema.max_output}")
    unknown = sorted(set(node.attributes) - set(schema.attributes))
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
