"""Operators whose standard defines them by other operators, replaced by that definition.

Attention hides a softmax, SoftmaxCrossEntropyLoss a log-softmax, SwiGLU a sigmoid.  The ONNX
standard ships a function body for each of them, and once that body stands in the graph the passes
find what they know.  Operators with a pass of their own (LayerNormalization, Gelu, ...) are left
whole: a pass knows the domain of its parts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import onnx_ir as ir
from onnx_ir.passes import common

__all__ = [
    "EXPANDABLE",
    "SCHEMA_DOMAIN",
    "call_schema_body",
    "expand_schema_functions",
    "kinds_that_hide",
]

_PREVIEW = "ai.onnx.preview"
SCHEMA_DOMAIN = "odp.schema"
"""Domain of the functions that `call_schema_body` makes; gone once they are inlined."""

EXPANDABLE: dict[tuple[str, str], tuple[str, ...]] = {
    ("", "Attention"): ("softmax", "exp", "tanh"),
    (_PREVIEW, "FlexAttention"): ("softmax", "exp"),
    ("", "LinearAttention"): ("exp", "sqrt"),
    ("", "CausalConvWithState"): ("silu", "sigmoid"),
    ("", "SwiGLU"): ("silu", "sigmoid"),
    ("", "SoftmaxCrossEntropyLoss"): ("log_softmax", "exp", "log"),
    ("", "MeanVarianceNormalization"): ("sqrt",),
    **{("", f"{name}Window"): ("cos",) for name in ("Hann", "Hamming", "Blackman")},
}
"""Domain and type of every operator that is expanded, to the passes that its body has work for."""

# A body may call another of these operators: SwiGLU needs two rounds, none needs four.
_MAX_DEPTH = 4


def kinds_that_hide(passes: Iterable[str]) -> frozenset[tuple[str, str]]:
    """The expandable operators that contain work for any of the passes.

    >>> sorted(kind for _, kind in kinds_that_hide(["silu"]))
    ['CausalConvWithState', 'SwiGLU']
    """
    wanted = set(passes)
    return frozenset(kind for kind, parts in EXPANDABLE.items() if wanted.intersection(parts))


def expand_schema_functions(
    model: ir.Model, kinds: Collection[tuple[str, str]] = frozenset(EXPANDABLE)
) -> bool:
    """Replace operators, in place, by the function bodies of their schemas.

    Bodies are exact and general: they hold shape arithmetic, which constant folding removes where
    the shapes are static.  The replaced node hands its name and its provenance on to its body.
    Constants of the model are not touched.  A node whose body onnx cannot build (it needs the types
    of all inputs) stays as it is.

    Args:
        model: the model, functions inlined, types inferred.
        kinds: domain and type of the operators to expand.

    Returns:
        Whether anything was replaced.

    >>> import onnx
    >>> swiglu = onnx.parser.parse_model('''<ir_version: 10, opset_import: ["" : 28]>
    ...     g (float[2, 4] a, float[2, 4] b) => (float[2, 4] y) { y = SwiGLU(a, b) }''')
    >>> model = ir.from_proto(swiglu)
    >>> expand_schema_functions(model), [node.op_type for node in model.graph]
    (True, ['Swish', 'Mul'])
    """
    changed = False
    for _ in range(_MAX_DEPTH):
        nodes = [
            node
            for node in ir.traversal.RecursiveGraphIterator(model.graph)
            if (_domain(node), node.op_type) in kinds
        ]
        functions = [call_schema_body(node, model, number) for number, node in enumerate(nodes)]
        if not any(functions):
            break
        common.InlinePass(lambda function: function.domain == SCHEMA_DOMAIN)(model)
        del model.opset_imports[SCHEMA_DOMAIN]
        changed = True
    return changed


def _domain(node: ir.Node) -> str:
    return "" if node.domain == "ai.onnx" else node.domain


def call_schema_body(node: ir.Node, model: ir.Model, number: int) -> bool:
    """Make of `node` a call of a function of its own, the body of its schema, if it has one.

    Args:
        node: an operator of `model`, types inferred.
        model: gets the function, in `SCHEMA_DOMAIN`, to be inlined by the caller.
        number: makes the name of the function unique.

    Returns:
        Whether there is a body for this use of the operator; if not, `node` is unchanged.

    Raises:
        Exception: of many kinds, where the C++ of onnx fails to build the body.
    """
    _write_default_attributes(node, model.opset_imports[node.domain])
    captured = _captured(node)
    body = _schema_body(node, model.opset_imports, [value.name or "" for value in captured])
    if body is None:
        return False
    node.resize_inputs(len(body.inputs))
    for index, value in enumerate(captured, len(body.inputs) - len(captured)):
        node.replace_input_with(index, value)
    prefix = f"{node.name or node.outputs[0].name}/{node.op_type}"
    for inner in ir.traversal.RecursiveGraphIterator(body.graph):
        inner.name = f"{prefix}/{inner.name or inner.op_type}"
        for output in inner.outputs:
            output.name = f"{prefix}/{output.name}" if output.name else ""
    # What the body needs of an inner graph (the score_mod of FlexAttention) stands in it already.
    for name in [k for k, a in node.attributes.items() if a.type == ir.AttributeType.GRAPH]:
        node.attributes.pop(name)
    node.domain, node.op_type = SCHEMA_DOMAIN, f"{node.op_type}_{number}"
    function = ir.Function(
        node.domain, node.op_type, graph=body.graph, attributes=list(body.attributes.values())
    )
    function.opset_imports.update(model.opset_imports)
    model.functions[function.identifier()] = function
    model.opset_imports[SCHEMA_DOMAIN] = 1
    return True


def _write_default_attributes(node: ir.Node, version: int) -> None:
    """Write defaults out, because bodies refer to them (HannWindow takes a type from one)."""
    import onnx.defs

    schema = onnx.defs.get_schema(node.op_type, version, node.domain)
    for name, attribute in schema.attributes.items():
        if name not in node.attributes and attribute.default_value.type:
            node.attributes[name] = ir.serde.deserialize_attribute(attribute.default_value)


def _schema_body(
    node: ir.Node, versions: Mapping[str, int], captured: Sequence[str]
) -> ir.Function | None:
    """The definition of an operator, or None if the standard has none for this use of it.

    What a body inside the node captures becomes an input of the definition, after the others.

    `onnx.inliner` would do this too, but fails where an optional input in the middle is left out.
    """
    import onnx.defs

    version = versions[node.domain]
    # The stubs of onnx do not have the functions of a schema.
    schema: Any = onnx.defs.get_schema(node.op_type, version, node.domain)
    proto = ir.serde.serialize_node(node)
    fixed = [v for v in schema.function_opset_versions if v <= version]
    dependent = [v for v in schema.context_dependent_function_opset_versions if v <= version]
    if fixed:
        payload = schema.get_function_with_opset_version(max(fixed))
    elif dependent and _types_are_known(node):
        types = [_type_of(value).SerializeToString() for value in node.inputs]
        payload = schema.get_context_dependent_function_with_opset_version(
            max(dependent), proto.SerializeToString(), types
        )
    else:
        return None
    body = onnx.FunctionProto.FromString(payload)
    body.input.extend(captured)
    del body.output[len(node.outputs) :]
    computed = {name for inner in body.node for name in inner.output}
    for name in set(body.output) - computed:
        # A result that this node does not ask for, and so the body does not compute.
        body.node.append(onnx.helper.make_node("Constant", [], [name], value_int=0))
    return ir.serde.deserialize_function(body)


def _types_are_known(node: ir.Node) -> bool:
    return all(value is None or value.type is not None for value in node.inputs)


def _type_of(value: ir.Value | None) -> Any:
    import onnx

    return onnx.TypeProto() if value is None else ir.serde.serialize_value(value).type


def _captured(node: ir.Node) -> list[ir.Value]:
    """Values of outer graphs that the bodies inside `node` read."""
    known: set[ir.Value] = set()
    used: dict[ir.Value, None] = {}
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            known.update(attribute.as_graph().inputs, attribute.as_graph().initializers.values())
            for inner in ir.traversal.RecursiveGraphIterator(attribute.as_graph()):
                known.update(inner.outputs)
                used.update(dict.fromkeys(value for value in inner.inputs if value is not None))
    return [value for value in used if value not in known]
