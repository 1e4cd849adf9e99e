"""Attention masks: no softmax domain is poisoned, and stored masks become small finite numbers."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import odp

from .cases import Array, build_model, run
from .error_bounds import softmax_bound

TOKENS = 8
ROUNDING = 2.0**-24
"""Unit roundoff of float32."""
SMALLEST = float(np.finfo(np.float32).min)
CAUSAL = np.triu(np.ones((TOKENS, TOKENS), bool), 1)

# Names of masks as exporters store them.
STORED = {"minus_1e4": -1e4, "smallest_float": SMALLEST, "minus_infinity": -np.inf}

guards = pytest.mark.parametrize("guard", ["clip", "none"])
values = pytest.mark.parametrize("value", STORED.values(), ids=STORED.keys())


def causal(value: float) -> Array:
    return np.where(CAUSAL, np.float32(value), np.float32(0.0))


def scores(samples: int = 4) -> Array:
    random = np.random.default_rng(0)
    return random.uniform(-4, 4, (samples, 2, TOKENS, TOKENS)).astype(np.float32)


def attention(
    body: str, constants: dict[str, Array], *, padding: bool = False, **options: object
) -> onnx.ModelProto:
    inputs = {"x": (2, TOKENS, TOKENS)} | ({"padding": (2, 1, TOKENS)} if padding else {})
    return build_model(body, inputs=inputs, constants=constants, **options)  # type: ignore[arg-type]


def stored_floats(model: ir.Model) -> list[Array]:
    return [
        value.const_value.numpy()
        for value in model.graph.initializers.values()
        if value.const_value is not None and value.const_value.dtype.is_floating_point()
    ]


def assert_small_and_close(
    model: onnx.ModelProto, calibration: dict[str, Array], guard: str
) -> odp.RewriteResult:
    """The rewritten model has no mask left and agrees with the original on every row."""
    result = odp.rewrite(model, "softmax", calibration=calibration, guard=guard)
    assert result.report.model.transcendental_after == {}
    for array in stored_floats(result.model):
        assert np.isfinite(array).all() and np.abs(array).max(initial=0.0) <= 4096.0
    for site in result.report.sites:
        assert site.observed is not None and site.observed[0] >= -16.0
        assert site.domain[0] >= -256.0
    bound = softmax_bound(result.report, TOKENS)
    for index in range(len(calibration["x"])):
        feed = {name: array[index] for name, array in calibration.items()}
        before, after = run(model, feed), run(ir.to_proto(result.model), feed)
        for one, two in zip(before, after, strict=True):
            np.testing.assert_allclose(two, one, rtol=0, atol=bound + 1e-6)
    return result


@guards
@values
def test_added_causal_mask(value: float, guard: str) -> None:
    model = attention("s = Add(x, mask) y = Softmax(s)", {"mask": causal(value)})
    result = assert_small_and_close(model, {"x": scores()}, guard)
    (record,) = result.report.passes
    assert any("mask" in note for note in record.notes)


@guards
@values
def test_added_causal_mask_of_a_spelled_out_softmax(value: float, guard: str) -> None:
    model = attention(
        "s = Add(x, mask) m = ReduceMax<axes = [-1]>(s) d = Sub(s, m) e = Exp(d)"
        " t = ReduceSum<axes = [-1]>(e) y = Div(e, t)",
        {"mask": causal(value)},
        opset=12,
    )
    assert_small_and_close(model, {"x": scores()}, guard)


@guards
@values
def test_selected_causal_mask(value: float, guard: str) -> None:
    constants: dict[str, Array] = {"keep": ~CAUSAL, "huge": np.array(value, np.float32)}
    model = attention("s = Where(keep, x, huge) y = Softmax(s)", constants)
    assert_small_and_close(model, {"x": scores()}, guard)


@guards
def test_mask_that_moves_before_it_is_added(guard: str) -> None:
    model = attention(
        "axes = Constant<value_ints = [0]>() u = Unsqueeze(mask, axes) "
        "shape = Constant<value_ints = [2, 8, 8]>() m = Expand(u, shape)"
        " s = Add(m, x) y = Softmax(s)",
        {"mask": causal(SMALLEST)},
    )
    assert_small_and_close(model, {"x": scores()}, guard)


@guards
@pytest.mark.parametrize("value", [-1e4, SMALLEST], ids=["minus_1e4", "smallest_float"])
@pytest.mark.parametrize("sign", ["added", "subtracted"])
def test_dynamic_padding_mask(value: float, sign: str, guard: str) -> None:
    combine, huge = ("Add", value) if sign == "added" else ("Sub", -value)
    model = attention(
        f"i = Sub(one, padding) m = Mul(i, huge) s = {combine}(x, m) y = Softmax(s)",
        {"huge": np.array(huge, np.float32)},
        padding=True,
    )
    padding = np.ones((4, 2, 1, TOKENS), np.float32)
    padding[1, :, :, 5:] = 0.0
    padding[2, 0, :, :3] = 0.0
    assert_small_and_close(model, {"x": scores(), "padding": padding}, guard)


@guards
def test_mask_shared_by_two_softmaxes(guard: str) -> None:
    model = attention(
        "a = Add(x, mask) p = Softmax(a) b = Add(p, mask) q = Softmax(b) y = Add(p, q)",
        {"mask": causal(SMALLEST)},
    )
    result = odp.rewrite(model, "softmax", calibration={"x": scores()}, guard=guard)
    for array in stored_floats(result.model):
        assert array.min(initial=0.0) >= -256.0
    # Twice the bound of one: an error of the first softmax moves the scores of the second.
    bound = 3 * softmax_bound(result.report, TOKENS)
    feed = {"x": scores()[0]}
    np.testing.assert_allclose(
        run(ir.to_proto(result.model), feed)[0], run(model, feed)[0], rtol=0, atol=bound
    )


@pytest.mark.parametrize(
    "body",
    [
        # The same constant in another place.
        "s = Add(x, mask) p = Softmax(s) n = Mul(mask, half) y = Add(p, n)",
        # A value behind the constant in another place, two steps away.
        "m = Mul(mask, half) s = Add(x, m) p = Softmax(s) n = Add(m, one) r = Abs(n) y = Add(p, r)",
        # The masked scores themselves.
        "s = Add(x, mask) p = Softmax(s) y = Add(p, s)",
    ],
    ids=["constant", "behind", "scores"],
)
def test_mask_that_feeds_something_else_keeps_its_value_there(body: str) -> None:
    model = attention(body, {"mask": causal(-1e4)})
    result = odp.rewrite(model, "softmax", calibration={"x": scores()})
    feed = {"x": scores()[0]}
    before, after = run(model, feed)[0], run(ir.to_proto(result.model), feed)[0]
    bound = softmax_bound(result.report, TOKENS)
    # Sums with -1e4 are rounded twice, in float32.
    np.testing.assert_allclose(after, before, rtol=2 * ROUNDING, atol=bound)


def test_masked_scores_that_are_an_output_keep_their_value() -> None:
    model = attention("s = Add(x, mask) y = Softmax(s)", {"mask": causal(-1e4)}, outputs=("y", "s"))
    result = odp.rewrite(model, "softmax", calibration={"x": scores()})
    feed = {"x": scores()[0]}
    np.testing.assert_array_equal(run(ir.to_proto(result.model), feed)[1], run(model, feed)[1])


@guards
@values
def test_log_softmax_keeps_the_mask_in_its_result(value: float, guard: str) -> None:
    """The log-probability of a masked entry is the mask: it must not become a small number."""
    model = attention("s = Add(x, mask) y = LogSoftmax(s)", {"mask": causal(value)})
    result = odp.rewrite(model, "log_softmax", calibration={"x": scores()}, guard=guard)
    feed = {"x": scores()[0]}
    before, after = run(model, feed)[0], run(ir.to_proto(result.model), feed)[0]
    bound = softmax_bound(result.report, TOKENS)
    # Differences with the mask and with the logarithm are rounded on both sides, in float32.
    scale = float(np.abs(feed["x"]).max()) + np.log(TOKENS)
    np.testing.assert_allclose(after, before, rtol=4 * ROUNDING, atol=bound + 8 * ROUNDING * scale)


@guards
def test_log_sum_exp_of_masked_scores(guard: str) -> None:
    model = attention(
        "s = Add(x, mask) y = ReduceLogSumExp<axes = [-1]>(s)", {"mask": causal(SMALLEST)}
    )
    result = odp.rewrite(model, "log_softmax", calibration={"x": scores()}, guard=guard)
    feed = {"x": scores()[0]}
    before, after = run(model, feed)[0], run(ir.to_proto(result.model), feed)[0]
    np.testing.assert_allclose(
        after, before, rtol=1e-6, atol=softmax_bound(result.report, TOKENS) + 1e-6
    )


@pytest.mark.parametrize("value", [-1e4, SMALLEST], ids=["minus_1e4", "smallest_float"])
def test_fully_masked_rows_are_uniform(value: float) -> None:
    """A row with nothing to look at looks everywhere alike, as in the original."""
    keep = ~CAUSAL
    keep[3] = False
    constants: dict[str, Array] = {"keep": keep, "huge": np.array(value, np.float32)}
    model = attention("s = Where(keep, x, huge) y = Softmax(s)", constants)
    result = assert_small_and_close(model, {"x": scores()}, "clip")
    (after, *_) = run(ir.to_proto(result.model), {"x": scores()[0]})
    np.testing.assert_allclose(after[:, 3], 1 / TOKENS, rtol=1e-6)


def test_fully_masked_rows_of_an_added_mask_stay_a_distribution() -> None:
    """Adding the smallest float wipes the scores out, adding a small number does not."""
    mask = causal(SMALLEST)
    mask[3] = SMALLEST
    model = attention("s = Add(x, mask) y = Softmax(s)", {"mask": mask})
    result = odp.rewrite(model, "softmax", calibration={"x": scores()})
    (after, *_) = run(ir.to_proto(result.model), {"x": scores()[0]})
    np.testing.assert_allclose(after.sum(-1), 1.0, rtol=1e-5)
    assert (after > -1e-4).all()


@guards
def test_rows_of_minus_infinity_keep_what_the_model_makes_of_them(guard: str) -> None:
    """torch exports scaled_dot_product_attention with zeros where a whole row is masked."""
    mask = causal(-np.inf)
    mask[3] = -np.inf
    model = attention(
        "s = Add(x, mask) p = Softmax(s) n = IsNaN(p) y = Where(n, zero, p)", {"mask": mask}
    )
    result = odp.rewrite(model, "softmax", calibration={"x": scores()}, guard=guard)
    (warning,) = result.report.warnings
    assert "-inf altogether" in warning
    feed = {"x": scores()[0]}
    before, after = run(model, feed)[0], run(ir.to_proto(result.model), feed)[0]
    assert (before[:, 3] == 0.0).all()
    np.testing.assert_allclose(
        after, before, rtol=0, atol=softmax_bound(result.report, TOKENS) + 1e-6
    )


def test_masks_in_the_data_do_not_poison_the_domain() -> None:
    """Scores that arrive masked (another part of the network did it) are not calibrated on."""
    masked = scores()
    masked[..., 5:] = -1e4
    model = attention("y = Softmax(x)", {})
    result = odp.rewrite(model, "softmax", calibration={"x": masked}, guard="clip")
    (site,) = result.report.sites
    assert site.observed is not None and site.observed[0] >= -8.0
    for index in range(2):
        feed = {"x": masked[index]}
        np.testing.assert_allclose(
            run(ir.to_proto(result.model), feed)[0],
            run(model, feed)[0],
            rtol=0,
            atol=softmax_bound(result.report, TOKENS) + 1e-6,
        )
    unguarded = odp.rewrite(model, "softmax", calibration={"x": masked}, guard="none")
    assert np.isfinite(run(ir.to_proto(unguarded.model), {"x": masked[0]})[0]).all()


@values
@pytest.mark.parametrize("shift", ["max", "none"])
def test_stored_masks_as_factors(value: float, shift: str) -> None:
    """For circuits: no exp sees a mask, and without a shift nothing else does either."""
    model = attention("s = Add(x, m)\ny = Softmax <axis = -1> (s)", {"m": causal(value)})
    data = {"x": scores()}
    passes = f"softmax{{mask=multiply,shift={shift}}}"
    result = odp.rewrite(model, passes, calibration=data, guard="none")
    assert result.report.model.transcendental_after == {}
    (site,) = result.report.sites
    assert site.observed is not None and site.observed[0] >= -8.0
    if shift == "none":
        assert site.observed[1] <= 4.0
        largest = max(
            float(np.abs(array).max(initial=0.0)) for array in stored_floats(result.model)
        )
        assert largest <= 4096.0
    (chosen,) = result.report.approximants
    # Weights up to 1 have an absolute error; larger ones a relative one, which a quotient of a
    # weight by a sum of weights at most doubles.
    bound = softmax_bound(result.report, TOKENS)
    if shift == "none":
        assert chosen.relative_error is not None
        bound = 2.0 * chosen.relative_error / (1.0 - chosen.relative_error)
    for sample in data["x"]:
        before = run(model, {"x": sample})[0]
        after = run(ir.to_proto(result.model), {"x": sample})[0]
        np.testing.assert_allclose(after, before, rtol=0, atol=bound + 1e-6)
        assert not after[..., CAUSAL].any()


def test_a_mask_that_is_no_factor_stays_added() -> None:
    """A bias beside the mask, or a mask that is an input, cannot become ones and zeros."""
    biased = causal(-1e4) + np.float32(0.5) * ~CAUSAL
    model = attention("s = Add(x, m)\ny = Softmax <axis = -1> (s)", {"m": biased})
    result = odp.rewrite(model, "softmax{mask=multiply}", calibration={"x": scores()})
    bound = softmax_bound(result.report, TOKENS)
    for sample in scores():
        before, after = run(model, {"x": sample}), run(ir.to_proto(result.model), {"x": sample})
        np.testing.assert_allclose(after[0], before[0], rtol=0, atol=bound + 1e-6)
