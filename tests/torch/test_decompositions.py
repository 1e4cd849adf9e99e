"""Every entry of the decomposition table computes what its operator does, in float64."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

from odp.backends.torch.decompositions import decomposition_table
from odp.backends.torch.functional import make_functional
from odp.rewriter.fx_graph import FxGraph
from odp.rewriter.fx_transcendental import is_transcendental
from odp.rewriter.graph import VOCABULARY

from .small_graphs import aten

Tensor = torch.Tensor


def numbers(*shape: int, seed: int = 0, low: float = -2.0, high: float = 2.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return low + (high - low) * torch.rand(*shape, generator=generator, dtype=torch.float64)


X, Y = numbers(3, 4), numbers(3, 4, seed=1)
POSITIVE = numbers(3, 4, seed=2, low=0.25)
SHARE = numbers(3, 4, seed=3, low=0.125, high=0.875)
CLASSES = torch.tensor([0, 3, 1])
WEIGHT = numbers(4, seed=4, low=0.5)
SIGNS = torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64)
STEPS = numbers(5, 2, 3, seed=5)  # time, batch, channels


def recurrent(
    gates: int, layers: int = 1, directions: int = 1, biases: bool = True
) -> list[Tensor]:
    """Weights of a recurrent layer from 3 channels to 4."""
    weights: list[Tensor] = []
    for layer, direction in itertools.product(range(layers), range(directions)):
        entering = 3 if layer == 0 else 4 * directions
        seed = 10 * layer + direction
        weights += [numbers(gates * 4, entering, seed=seed), numbers(gates * 4, 4, seed=seed + 100)]
        if biases:
            weights += [numbers(gates * 4, seed=seed + 200), numbers(gates * 4, seed=seed + 300)]
    return weights


def state(count: int, seed: int = 7) -> Tensor:
    return numbers(count, 2, 4, seed=seed)


# Packed: 8 steps of sequences of lengths 5 and 3.
PACKED, BATCH_SIZES = numbers(8, 3, seed=6), torch.tensor([2, 2, 2, 1, 1])

CALLS: dict[Any, list[tuple[Any, ...]]] = {
    aten.log1p.default: [(POSITIVE,), (X / 4,)],
    aten.expm1.default: [(X,)],
    aten.exp2.default: [(X,)],
    aten.log2.default: [(POSITIVE,)],
    aten.log10.default: [(POSITIVE,)],
    aten.erfc.default: [(X,)],
    aten.hypot.default: [(X, Y)],
    aten.log_sigmoid.default: [(X,)],
    aten.dist.default: [(X, Y), (X, Y, 3.0)],
    aten.copy.default: [(X, Y), (X, Y[0]), (X.float(), Y)],
    aten.softplus.default: [(X, 2.0), (X, 0.5, 1.0), (X * 4, 1.0, 3.0)],
    aten._safe_softmax.default: [(X, -1), (X.where(X > 0, -torch.inf), 1), (X, 0, torch.float32)],
    aten.logit.default: [(SHARE,), (SHARE, 0.25)],
    aten.special_logit.default: [(SHARE,), (SHARE, 0.25)],
    aten.special_erfc.default: [(X,)],
    aten.special_expm1.default: [(X,)],
    aten.special_log1p.default: [(POSITIVE,)],
    aten.special_ndtr.default: [(X,)],
    aten.special_log_ndtr.default: [(X,)],
    aten.special_entr.default: [(POSITIVE,), (X,)],
    aten.special_sinc.default: [(X,)],
    aten.sinc.default: [(X,), (torch.zeros(2, dtype=torch.float64),)],
    aten.xlogy.Tensor: [(X, POSITIVE), (torch.zeros_like(X), torch.zeros_like(X))],
    aten.xlogy.Scalar_Self: [(2.0, POSITIVE)],
    aten.xlogy.Scalar_Other: [(X, 3.0)],
    aten.special_xlogy.default: [(X, POSITIVE)],
    aten.special_xlogy.self_scalar: [(2.0, POSITIVE)],
    aten.special_xlogy.other_scalar: [(X, 3.0)],
    aten.special_xlog1py.default: [(X, POSITIVE)],
    aten.special_xlog1py.self_scalar: [(2.0, POSITIVE)],
    aten.special_xlog1py.other_scalar: [(X, 3.0)],
    aten.std.default: [(X,), (X, False)],
    aten.std.dim: [(X, [1]), (X, [0], False, True)],
    aten.std.correction: [(X, [1]), (X, None)],
    aten.std_mean.default: [(X,)],
    aten.std_mean.dim: [(X, [1])],
    aten.std_mean.correction: [(X, [0])],
    aten.logaddexp.default: [(X, Y)],
    aten.logaddexp2.default: [(X, Y)],
    aten.float_power.Tensor_Scalar: [(POSITIVE, 0.3)],
    aten.float_power.Tensor_Tensor: [(POSITIVE, Y)],
    aten.float_power.Scalar: [(1.5, Y)],
    aten.cosine_similarity.default: [(X, Y, 1), (X, Y, 0, 1e-3)],
    aten.cosine_embedding_loss.default: [(X, Y, SIGNS), (X, Y, SIGNS, 0.25, 0)],
    aten.pairwise_distance.default: [(X, Y), (X, Y, 3.0, 1e-3, True)],
    aten.renorm.default: [(X, 2, 0, 1.5)],
    aten._weight_norm.default: [(X, numbers(3, 1, seed=8), 0)],
    aten._weight_norm_interface.default: [(X, numbers(3, 1, seed=8), 0)],
    aten.linalg_norm.default: [(X,), (X, 2, [1], True)],
    aten.linalg_norm.ord_str: [(X, "fro")],
    aten.linalg_matrix_norm.default: [(X, 1), (X, float("inf"))],
    aten.linalg_matrix_norm.str_ord: [(X,)],
    aten.frobenius_norm.dim: [(X, [1]), (X, [0, 1], True)],
    aten.glu.default: [(X,), (X.T, 0)],
    aten._fused_rms_norm.default: [(X, [4], WEIGHT, 1e-3), (X, [4], None, None)],
    aten.cross_entropy_loss.default: [
        (X, CLASSES),
        (X, CLASSES, WEIGHT, 2),
        (X, CLASSES, None, 0, -100, 0.125),
        (X, SHARE),
        (X, CLASSES, None, 1, 3),
    ],
    aten.binary_cross_entropy.default: [(SHARE, SHARE.round()), (SHARE, SHARE, WEIGHT, 0)],
    aten.binary_cross_entropy_with_logits.default: [(X, SHARE), (X, SHARE, WEIGHT, WEIGHT, 2)],
    aten.kl_div.default: [(X, SHARE), (X, Y, 2, {"log_target": True})],
    aten.poisson_nll_loss.default: [
        (X, POSITIVE, True, False, 1e-8, 1),
        (POSITIVE, POSITIVE, False, True, 1e-8, 0),
    ],
    aten.triplet_margin_loss.default: [(X, Y, POSITIVE), (X, Y, POSITIVE, 0.5, 2.0, 1e-6, True)],
    aten.soft_margin_loss.default: [(X, SIGNS[:, None].expand_as(X)), (X, X.sign(), 0)],
    aten.lstm.input: [
        (STEPS, [state(1), state(1, 8)], recurrent(4), True, 1, 0.0, False, False, False),
        (STEPS, [state(4), state(4, 8)], recurrent(4, 2, 2), True, 2, 0.0, False, True, False),
        (STEPS, [state(1), state(1, 8)], recurrent(4, 1, 1, False), False, 1, 0.0, *[False] * 3),
    ],
    aten.lstm.data: [
        (PACKED, BATCH_SIZES, [state(1), state(1, 8)], recurrent(4), True, 1, 0.0, False, False)
    ],
    aten.gru.input: [
        (STEPS, state(1), recurrent(3), True, 1, 0.0, False, False, False),
        (STEPS.mT.mT, state(4), recurrent(3, 2, 2), True, 2, 0.0, False, True, False),
    ],
    aten.gru.data: [(PACKED, BATCH_SIZES, state(1), recurrent(3), True, 1, 0.0, False, False)],
    aten.rnn_tanh.input: [(STEPS, state(1), recurrent(1), True, 1, 0.0, False, False, False)],
    aten.rnn_tanh.data: [(PACKED, BATCH_SIZES, state(1), recurrent(1), True, 1, 0.0, False, False)],
    aten.lstm_cell.default: [(STEPS[0], [state(1)[0], state(1, 8)[0]], *recurrent(4))],
    aten.gru_cell.default: [(STEPS[0], state(1)[0], *recurrent(3))],
    aten.rnn_tanh_cell.default: [(STEPS[0], state(1)[0], *recurrent(1))],
    aten.batch_norm.default: [
        (X, WEIGHT, Y[0], Y[1], POSITIVE[0], True, 0.1, 1e-3, False),
        (STEPS, None, None, None, None, True, 0.1, 1e-3, False),
        (STEPS[..., None], None, None, STEPS[0, :, 0], STEPS[1, :, 0], True, 0.3, 1e-3, False),
    ],
    aten._native_batch_norm_legit_functional.default: [
        (X, WEIGHT, Y[0], Y[1], POSITIVE[0], True, 0.1, 1e-3)
    ],
    aten._native_batch_norm_legit.no_stats: [(X, WEIGHT, Y[0], True, 0.1, 1e-3)],
}
ALIASES = {
    **{f"arc{name}": (SHARE,) for name in ("cos", "sin", "tan", "sinh", "tanh")},
    "arccosh": (POSITIVE + 1.0,),
    "arctan2": (X, Y),
    "absolute": (X,),
    "negative": (X,),
    "clip": (X, -0.5, 0.5),
    "concat": ([X, Y], 1),
    "concatenate": ([X, Y], 0),
    "special_softmax": (X, 1),
    "special_log_softmax": (X, 1),
    "special_logsumexp": (X, [1]),
    "special_erfinv": (X / 4,),
    "special_polygamma": (1, POSITIVE),
    "special_gammainc": (POSITIVE, POSITIVE),
    "special_gammaincc": (POSITIVE, POSITIVE),
    "special_multigammaln": (POSITIVE + 2.0, 2),
    **dict.fromkeys(("multiply", "divide", "true_divide", "subtract", "greater"), (X, Y)),
    **dict.fromkeys(("special_expit", "special_erf", "special_exp2", "special_i0"), (X,)),
    **dict.fromkeys(("special_gammaln", "special_digamma", "special_psi"), (POSITIVE,)),
}
# A file of its own for attention; the kernel of oneDNN has no float64; variants that write to
# a tensor given by the caller come from no model.
ELSEWHERE = {aten.scaled_dot_product_attention.default, aten.mkldnn_rnn_layer.default}
CASES = [(target, index) for target, calls in CALLS.items() for index in range(len(calls))]


def is_alias(target: Any) -> bool:
    return str(target._schema.name).partition("::")[2] in ALIASES


def writes(target: Any) -> bool:
    return any(argument.is_out for argument in target._schema.arguments)


def test_every_entry_is_tried() -> None:
    # Older versions of torch have named dimensions, which nothing exports.
    table = {t for t in decomposition_table() if not writes(t) and "names" not in t._overloadname}
    assert {t for t in table if not is_alias(t)} - ELSEWHERE == set(CALLS)
    names = {str(t._schema.name).partition("::")[2] for t in table if is_alias(t)}
    assert names == set(ALIASES)


def split(call: tuple[Any, ...]) -> tuple[list[Any], dict[str, Any]]:
    """Arguments of a call, tensors cloned because some calls write to them."""
    args = list(pytree.tree_map_only(torch.Tensor, torch.clone, call))
    kwargs = args.pop() if isinstance(args[-1], dict) else {}
    return args, kwargs


def same(actual: Any, expected: Any) -> None:
    found, wanted = pytree.tree_leaves(actual), pytree.tree_leaves(expected)
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert one.shape == other.shape
        # torch sums in another order: some roundings of the largest number.
        size = float(other.double().abs().max().clamp(min=1.0)) if other.numel() else 1.0
        unit = torch.finfo(other.dtype).eps if other.is_floating_point() else 0.0
        torch.testing.assert_close(one, other, rtol=0.0, atol=64 * unit * size, equal_nan=True)


@pytest.mark.parametrize(("target", "index"), CASES, ids=str)
def test_a_decomposition_computes_the_same(target: Any, index: int) -> None:
    args, kwargs = split(CALLS[target][index])
    others, _ = split(CALLS[target][index])
    expected = target(*args, **kwargs)
    same(decomposition_table()[target](*others, **kwargs), expected)
    # Running statistics are written.
    same([a for a in others if isinstance(a, Tensor)], [a for a in args if isinstance(a, Tensor)])


@pytest.mark.parametrize("name", ALIASES)
def test_an_alias_is_its_operator(name: str) -> None:
    packet = getattr(aten, name)
    entries = decomposition_table()
    overloads = [getattr(packet, o) for o in packet.overloads()]
    (target, *_) = [t for t in overloads if t in entries and t is _resolved(packet, ALIASES[name])]
    same(entries[target](*ALIASES[name]), target(*ALIASES[name]))


def _resolved(packet: Any, args: tuple[Any, ...]) -> Any:
    """The overload that a call of a packet takes."""
    for name in packet.overloads():
        target = getattr(packet, name)
        if writes(target):
            continue
        try:
            target(*args)
        except (RuntimeError, TypeError):
            continue
        return target
    raise AssertionError(packet)


@pytest.mark.parametrize(
    "call",
    [
        (aten.softplus.default, X),
        (aten.softplus.default, X, 1.0, 50.0),
        (aten.batch_norm.default, X, WEIGHT, WEIGHT, WEIGHT, WEIGHT, False, 0.1, 1e-5, False),
        (
            aten._native_batch_norm_legit_functional.default,
            *(X, WEIGHT, WEIGHT, WEIGHT, WEIGHT),
            *(False, 0.1, 1e-5),
        ),
        (aten._native_batch_norm_legit.no_stats, X, WEIGHT, WEIGHT, False, 0.1, 1e-5),
    ],
)
def test_what_a_pass_knows_or_nothing_hides_stays_whole(call: tuple[Any, ...]) -> None:
    target, *args = call
    assert decomposition_table()[target](*args) is NotImplemented


@pytest.mark.parametrize("reverse", [False, True])
def test_the_kernel_of_one_recurrent_layer(reverse: bool) -> None:
    x = STEPS.float()
    weights = [weight.float() for weight in recurrent(4)]
    hidden, cell = state(1).float(), state(1, 8).float()
    options = (reverse, [], 2, 4, 1, True, False, False, False)
    target = aten.mkldnn_rnn_layer.default
    expected = target(x, *weights, hidden, cell, *options)
    found = decomposition_table()[target](x, *weights, hidden, cell, *options)
    # The last result is memory of the kernel.
    for one, other in zip(found[:3], expected[:3], strict=True):
        torch.testing.assert_close(one, other, rtol=0.0, atol=64 * torch.finfo(x.dtype).eps)


def test_float16_statistics_are_computed_in_float32() -> None:
    x = (X * 300.0).half()
    found = decomposition_table()[aten.batch_norm.default](
        x, None, None, None, None, True, 0.1, 1e-5, False
    )
    exact = torch.batch_norm(x.double(), None, None, None, None, True, 0.1, 1e-5, False)
    assert found.dtype == torch.float16
    assert (found.double() - exact).abs().max() <= 2 * torch.finfo(torch.float16).eps


# What decompositions end in that no pass knows; the report says so.
UNKNOWN = {aten.special_log_ndtr.default: {"aten::special_erfcx"}}
# Packed sequences have as many steps as their values say, and cannot be traced.
TRACEABLE = [t for t in CALLS if t._overloadname != "data"]


@pytest.mark.parametrize("target", TRACEABLE, ids=str)
def test_what_is_left_is_in_the_vocabulary(target: Any) -> None:
    args, kwargs = split(CALLS[target][0])
    flat, spec = pytree.tree_flatten(args)

    def call(*tensors: Tensor) -> Any:
        remaining = iter(tensors)
        filled = [next(remaining) if isinstance(leaf, Tensor) else leaf for leaf in flat]
        return target(*pytree.tree_unflatten(filled, spec), **kwargs)

    tensors = [leaf for leaf in flat if isinstance(leaf, Tensor)]
    module = make_fx(call, decomposition_table(), tracing_mode="fake", pre_dispatch=True)(*tensors)
    for node in list(module.graph.nodes):
        make_functional(node)
    graph = FxGraph(module)
    left = [node for node in graph.nodes() if is_transcendental(node.native)]
    assert {node.op for node in left if node.op not in VOCABULARY} == UNKNOWN.get(target, set())
