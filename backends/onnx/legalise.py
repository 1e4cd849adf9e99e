"""Lower a model of any opset from 7 to the newest to true opset 12.

`onnx.version_converter` cannot: it has seven adapters from 13 to 12, and none for Add or Mul (of
the operators in ONNX's own node tests it converts 52 of 189).  So this is a legaliser of our own:
a table of rules (`legalise_*.py`), then a check of every node against the schemas of opset 12.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common

from odp.backends.onnx import (  # noqa: F401  importing them fills RULES
    legalise_activations,
    legalise_normalisations,
    legalise_old_opsets,
    legalise_quantisation,
    legalise_recurrent,
    legalise_reductions,
    legalise_tensors,
)
from odp.backends.onnx.errors import LegalisationError
from odp.backends.onnx.freeze import run_shape_inference, simplify
from odp.backends.onnx.garbage_collection import paused_collector
from odp.backends.onnx.legalise_emitter import RULES, Emitter, Refusal, constant
from odp.backends.onnx.legalise_functions import NO_BODY, expand_schema_functions
from odp.backends.onnx.legalise_types import widen_types
from odp.backends.onnx.load import describe_node, inline_functions
from odp.backends.onnx.opset_schemas import schema_of, schema_violations

__all__ = ["OLDEST_SOURCE_OPSET", "legalise"]

OLDEST_SOURCE_OPSET = 7
"""Before opset 7 arithmetic had a `broadcast` attribute; no exporter of this decade writes that."""

_IR_VERSION = 7
_REFUSED = "odp.legalise.refused"
# The versions of the other standard domains at the release of opset 12 (ONNX 1.7).
_COMPANION_DOMAINS = {"ai.onnx.ml": 2, "ai.onnx.preview.training": 1}


@paused_collector()
def legalise(model: ir.Model, opset: int = 12) -> ir.Model:
    """Make a model a true opset-12 model (IR version 7), in place.

    Functions are inlined, operators that came later are spelled out in operators of opset 12,
    changed signatures are changed back, and every node, those in If, Loop and Scan bodies
    included, is checked against the schema of its operator in opset 12.  New nodes carry the
    `metadata_props` of the node they replace.  float16 where opset 12 takes only float32 is
    widened by casts, and so are integers of 8 and 16 bits.

    Args:
        model: a model of opset 7 or later.  Static shapes and constant axes let more of it be
            expressed: call `freeze_shapes` and `simplify` before.
        opset: 12, or the opset that the model has already (then the nodes are only checked).

    Returns:
        The same model.  On an error it is left in an unfinished state; do not use it.

    Raises:
        LegalisationError: the offending nodes and the reason for each, in one message.
    """
    inline_functions(model)
    source = model.opset_imports.get("")
    if source is None:
        if any(node.domain == "" for node in model.graph.all_nodes()):
            raise LegalisationError("the model does not say which opset of ai.onnx it uses")
        source = model.opset_imports[""] = opset
    if opset != 12 and opset != source:
        raise LegalisationError(
            f"cannot lower opset {source} to {opset}: the target is 12, or the model's own opset"
        )
    if source < OLDEST_SOURCE_OPSET:
        _refuse_ancient(model, source)
    common.RemoveInitializersFromInputsPass()(model)
    run_shape_inference(model)
    offenders: list[str] = []
    if opset != source:
        expanded = expand_schema_functions(model, opset)
        if expanded or _has_computed_parameters(model):
            simplify(model)
        offenders = _apply_rules(model, opset)
        model.opset_imports[""] = opset
        model.ir_version = _IR_VERSION
        run_shape_inference(model)
    offenders += _check(model, opset)
    if offenders:
        raise LegalisationError(_message(offenders, opset), tuple(offenders))
    common.RemoveUnusedNodesPass()(model)
    _settle_domains(model)
    return model


def _refuse_ancient(model: ir.Model, source: int) -> None:
    """Refuse operators that changed up to opset 7; rules begin there."""
    offenders = []
    for node in model.graph.all_nodes():
        if node.domain == "":
            old = schema_of(node.op_type, source)
            new = schema_of(node.op_type, OLDEST_SOURCE_OPSET)
            if old is None or new is None or old.since_version != new.since_version:
                offenders.append(f"{describe_node(node)}: changed after opset {source}")
    if offenders:
        raise LegalisationError(
            f"opset {source} is too old, export at opset {OLDEST_SOURCE_OPSET} or later: "
            + "; ".join(offenders[:20]),
            tuple(offenders),
        )


def _message(offenders: list[str], opset: int) -> str:
    shown = "; ".join(offenders[:20])
    more = f"; and {len(offenders) - 20} more" if len(offenders) > 20 else ""
    return f"not expressible in opset {opset}: {shown}{more}"


def _has_computed_parameters(model: ir.Model) -> bool:
    """Whether a parameter that opset 12 wants as an attribute is computed, and may fold."""
    return any(
        value is not None
        and value.dtype in (ir.DataType.INT64, None)
        and value.producer() is not None
        and constant(value) is None
        for node in model.graph.all_nodes()
        if node.domain == "" and node.op_type in RULES
        for value in node.inputs[1:]
    )


def _apply_rules(model: ir.Model, opset: int) -> list[str]:
    emitter = Emitter(model, opset)
    offenders = []
    for node in list(model.graph.all_nodes()):
        if node.domain != "":
            continue
        for rule in RULES.get(node.op_type, ()):
            if not rule.first <= emitter.source_opset <= rule.last:
                continue
            emitter.start(node)
            try:
                values = rule.rewrite(node, emitter)
            except Refusal as refusal:
                offenders.append(f"{describe_node(node)}: {refusal}")
                node.meta[_REFUSED] = True
                break
            if values is not None:
                emitter.replace(node, values)
            break
    return offenders


def _check(model: ir.Model, opset: int) -> list[str]:
    """Check every node, after widening what only its element type keeps out of the opset."""
    emitter = Emitter(model, opset)
    offenders = []
    versions = {"": opset, **_COMPANION_DOMAINS}
    for node in list(model.graph.all_nodes()):
        if _REFUSED in node.meta:
            continue
        version = versions.get(node.domain)
        if version is None:
            reason = f"domain {node.domain!r} has no place in a plain opset-{opset} model"
            offenders.append(f"{describe_node(node)}: {reason}")
            continue
        if node.domain == "":
            node = widen_types(node, emitter)
        reasons = schema_violations(node, version)
        if NO_BODY in node.meta:
            reasons.append(f"onnx cannot expand it here: {node.meta[NO_BODY]}")
        if reasons:
            offenders.append(f"{describe_node(node)}: {', '.join(reasons)}")
    return offenders


def _settle_domains(model: ir.Model) -> None:
    """Import exactly the domains that are used, in versions of the time of opset 12."""
    used = {node.domain for node in model.graph.all_nodes()}
    for domain in list(model.opset_imports):
        if domain != "" and domain not in used:
            del model.opset_imports[domain]
    for domain in used & set(_COMPANION_DOMAINS):
        model.opset_imports[domain] = _COMPANION_DOMAINS[domain]
