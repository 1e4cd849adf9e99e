"""`torch.compile(model, backend="odp")`: rational expressions without exporting anything.

Whatever TorchDynamo captures becomes a graph of ATen operators, on which the passes work as on an
exported one, and then goes to another backend.  It happens before autograd, so that gradients are
those of the expressions.

    compiled = torch.compile(model, backend="odp", options={"passes": "rsqrt,exp,rope"})

Options:

- `passes`, `error`, `margin`, `guard`: as for `odp.rewrite`.
- `ranges`: what sites saw (`RewriteResult.ranges`, or the path of a .json file); without it, the
  domains come from the inputs of the call that compiles.
- `target`: `triton` puts fused operators in the place of norms, gated layers and softmax first, as
  for `odp.rewrite`.
- `backend`: who compiles the result, `inductor` unless given.
- `report`: a function that is called with the sites of each graph and the transcendental operators
  that are left in it, by type.
"""

from __future__ import annotations

import contextlib
import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import fx
from torch.fx import traceback as fx_traceback
from torch.fx.experimental.proxy_tensor import make_fx

from odp.approximations.errors import OdpError
from odp.backends.torch.decompositions import decomposition_table
from odp.backends.torch.functional import make_functional
from odp.passes import registry
from odp.rewriter.calibration import Observation, Recorder
from odp.rewriter.fx_calibration import insert_observers
from odp.rewriter.fx_evaluation import Binding
from odp.rewriter.fx_graph import FxGraph
from odp.rewriter.manager import rewrite_graph, schedule
from odp.rewriter.pass_options import nearest, parse_passes
from odp.rewriter.ranges import Ranges, read_ranges
from odp.rewriter.rewrite_pass import Pass
from odp.rewriter.selection import Approximating, Defaults, check_options, select
from odp.rewriter.site import Request

__all__ = ["odp"]

_OPTIONS = ("passes", "error", "margin", "guard", "ranges", "target", "backend", "report")


def odp(
    module: fx.GraphModule,
    example_inputs: Sequence[Any],
    *,
    options: Mapping[str, Any] | None = None,
    mode: str | None = None,
) -> Callable[..., Any]:
    """Compile what TorchDynamo captured; the function behind `backend="odp"`.

    Args:
        module: the captured graph.
        example_inputs: inputs of the call that compiles, parameters among them.
        options: see the module.
        mode: of torch.compile, handed on to the other backend.

    Raises:
        OdpError: an option is unknown or wrong, or there is nothing to calibrate on.
    """
    chosen = dict(options or {})
    unknown = next((name for name in chosen if name not in _OPTIONS), None)
    if unknown is not None:
        raise OdpError(
            f"backend 'odp' has no option '{unknown}'{nearest(unknown, _OPTIONS)}; "
            f"its options are {', '.join(_OPTIONS)}"
        )
    target = chosen.get("target", "torch")
    if target not in ("torch", "triton"):
        raise OdpError(f"target is 'torch' or 'triton', not '{target}'")
    typed, defaults = _requests(chosen)
    requests = schedule(typed, registry())
    rational = module
    if any("functorch" in str(getattr(n.target, "__module__", "")) for n in module.graph.nodes):
        # Traced again, the levels of a captured vmap would be baked in as constants.
        warnings.warn(
            "odp leaves a graph alone that uses torch.func.vmap (Mamba's parallel scan does when "
            "it is compiled); odp.rewrite(model, ...) reaches it",
            stacklevel=2,
        )
    else:
        graph = _traced(module, example_inputs)
        if target == "triton":
            from odp.backends.triton.fused_graph import GraphFusion

            GraphFusion(tuple(typed), defaults.error)(graph)
            graph.recompile()
        if graph.transcendental():
            _rewrite(graph, requests, defaults, chosen, example_inputs)
        rational = graph.module
    compiler: Any = torch._dynamo.lookup_backend(chosen.get("backend", "inductor"))
    accepted = inspect.signature(compiler).parameters
    keywords = {"mode": mode} if mode is not None and "mode" in accepted else {}
    compiled: Callable[..., Any] = compiler(rational, example_inputs, **keywords)
    return compiled


def _requests(chosen: Mapping[str, Any]) -> tuple[list[Pass], Defaults]:
    typed = parse_passes(chosen.get("passes", "all"), registry())
    for rewrite in typed:
        check_options(rewrite)
    guard = chosen.get("guard", "clip")
    if guard not in ("clip", "none"):
        raise OdpError(f"guard is 'clip' or 'none', not '{guard}'")
    defaults = Defaults(chosen.get("error", 1e-5), chosen.get("margin", 0.25), guard)
    return typed, defaults


def _traced(module: fx.GraphModule, example_inputs: Sequence[Any]) -> FxGraph:
    """The captured graph in ATen operators, before autograd, with its symbolic sizes."""
    placeholders = [node for node in module.graph.nodes if node.op == "placeholder"]
    fakes = [
        node.meta.get("example_value", x)
        for node, x in zip(placeholders, example_inputs, strict=True)
    ]
    mode = next((fake.fake_mode for fake in fakes if hasattr(fake, "fake_mode")), None)

    # Inputs that are fake already bring the mode, and with it the symbolic sizes, to trace in.
    inputs = example_inputs if mode is None else fakes
    trace = make_fx(
        fx.Interpreter(module).run,
        decomposition_table(),
        tracing_mode="fake" if mode is None else "real",
        pre_dispatch=True,
    )
    with fx_traceback.preserve_node_meta(), mode or contextlib.nullcontext():
        traced = trace(*inputs)
    for node in list(traced.graph.nodes):
        make_functional(node)
    bindings: dict[str, Binding] = {}
    names = [node for node in traced.graph.nodes if node.op == "placeholder"]
    for node, captured, example in zip(names, placeholders, example_inputs, strict=True):
        source = str(
            getattr(captured, "_dynamo_source", None) or captured.meta.get("dynamo_source", "")
        )
        if isinstance(example, torch.nn.Parameter):
            bindings[node.name] = Binding(example, fixed=False)
        elif isinstance(example, torch.Tensor) and "_buffers" in source:
            bindings[node.name] = Binding(example, fixed=not _is_written(node))
    traced.graph._tracer_cls = None
    return FxGraph(traced, bindings)


def _is_written(node: fx.Node) -> bool:
    return any(
        isinstance(user.target, torch._ops.OpOverload) and user.target._schema.is_mutable
        for user in node.users
    )


def _rewrite(
    graph: FxGraph,
    requests: Sequence[Request],
    defaults: Defaults,
    chosen: Mapping[str, Any],
    example_inputs: Sequence[Any],
) -> None:
    recorded = graph.clone()
    recorder = Recorder()
    rewrite_graph(recorded, requests, recorder)
    ranges = chosen.get("ranges")
    if ranges is None:
        observations = {site_id: Observation() for site_id in recorder.sites}
        insert_observers(recorded, recorder, observations)
        with torch.no_grad():
            recorded.module(*_own(example_inputs))
    else:
        known = ranges if isinstance(ranges, Ranges) else read_ranges(Path(ranges))
        observations, _ = known.matching(recorder.sites, known.model)
    selection = select(recorder.sites, observations, defaults)
    rewrite_graph(graph, requests, Approximating(selection))
    graph.recompile()
    for warning in selection.warnings:
        warnings.warn(warning, stacklevel=2)
    left = graph.transcendental()
    if "report" in chosen:
        chosen["report"](list(recorder.sites.values()), left)
    elif left:
        listed = ", ".join(f"{name} {count}" for name, count in left.items())
        warnings.warn(f"odp left transcendental operators in a graph: {listed}", stacklevel=2)


def _own(example_inputs: Sequence[Any]) -> list[Any]:
    """Inputs that may be written to: what is captured may update a cache in place."""
    own = []
    for value in example_inputs:
        if hasattr(value, "fake_mode"):
            raise OdpError(
                "backend 'odp' needs the inputs of a real call to find domains on; pass "
                "options={'ranges': ...}, calibrated before"
            )
        if isinstance(value, torch.SymInt):
            # The size that the call has; asking for it as an int would fix it for all calls.
            own.append(value.node.hint)
            continue
        is_input = isinstance(value, torch.Tensor) and not isinstance(value, torch.nn.Parameter)
        own.append(value.detach().clone() if is_input else value)
    return own
