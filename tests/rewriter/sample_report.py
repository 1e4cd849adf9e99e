"""A realistic report for the tests of the views and for looking at them in a browser.

Every number is computed: a small attention block in numpy is evaluated with the exact functions and
with simple approximations (Pade with repeated squaring, Newton, Chebyshev), pass by pass.

    python tests/rewriter/sample_report.py report.html [layers]
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from odp.rewriter.report import (
    ApproximantRecord,
    Histogram,
    Metrics,
    ModelRecord,
    PassRecord,
    Report,
    SiteRecord,
    Skipped,
)

Array = npt.NDArray[np.float64]
Function = Callable[[Array], Array]


def exp_squaring(depth: int) -> Function:
    """exp by the [2/2] Pade approximant at x / 2^depth, squared depth times."""

    def evaluate(x: Array) -> Array:
        y = x / 2.0**depth
        value = (1 + y / 2 + y * y / 12) / (1 - y / 2 + y * y / 12)
        for _ in range(depth):
            value = value * value
        return value

    return evaluate


def rsqrt_newton(low: float, high: float, steps: int) -> Function:
    """1/sqrt(x) on [low, high]: Heron's iteration for the square root, then one division."""

    def evaluate(x: Array) -> Array:
        root = (x + np.sqrt(low * high)) / (low**0.5 + high**0.5)
        for _ in range(steps):
            root = 0.5 * (root + x / root)
        return np.asarray(1.0 / root)

    return evaluate


def chebyshev(function: Function, low: float, high: float, degree: int) -> Function:
    """Chebyshev interpolant."""
    interpolant = np.polynomial.Chebyshev.interpolate(function, degree, domain=[low, high])
    return lambda x: np.asarray(interpolant(x))


def sigmoid(x: Array) -> Array:
    return np.asarray(1.0 / (1.0 + np.exp(-x)))


def rsqrt(x: Array) -> Array:
    return np.asarray(1.0 / np.sqrt(x))


EXACT: dict[str, Function] = {"exp": np.exp, "rsqrt": rsqrt, "sigmoid": sigmoid}


def approximant(
    key: str,
    function: str,
    scheme: str,
    description: str,
    latex: str,
    domain: tuple[float, float],
    evaluate: Function,
    counts: tuple[int, int, int],
) -> ApproximantRecord:
    low, high = domain
    logarithmic = low > 0 and high / low > 50
    x = np.geomspace(low, high, 401) if logarithmic else np.linspace(low, high, 401)
    exact, approximate = EXACT[function](x), evaluate(x)
    error = np.abs(approximate - exact)
    single = np.abs(evaluate(x.astype(np.float32)).astype(np.float64) - exact)
    return ApproximantRecord(
        key=key,
        function=function,
        scheme=scheme,
        description=description,
        latex=latex,
        domain=domain,
        absolute_error=float(error.max()),
        relative_error=float((error / exact).max()),
        relative=function == "rsqrt",
        error_kind="certified" if scheme == "newton" else "measured",
        float32_error=float(single.max()),
        safe_interval=(low if function == "rsqrt" else None, None if function == "rsqrt" else high),
        multiplications=counts[0],
        divisions=counts[2],
        additions=counts[1],
        curve_x=x.tolist(),
        curve_exact=exact.tolist(),
        curve_approximate=approximate.tolist(),
    )


def metrics(original: Array, rewritten: Array) -> Metrics:
    difference = rewritten - original

    def softmax(x: Array) -> Array:
        e = np.exp(x - x.max(-1, keepdims=True))
        return np.asarray(e / e.sum(-1, keepdims=True))

    # Entries that underflow to 0 have no part in the divergence.
    p, q = (np.maximum(softmax(x), 1e-300) for x in (original, rewritten))
    return Metrics(
        max_abs=float(np.abs(difference).max()),
        rmse=float(np.sqrt((difference**2).mean())),
        relative_l2=float(np.linalg.norm(difference) / np.linalg.norm(original)),
        cosine=float(
            (original * rewritten).sum() / np.linalg.norm(original) / np.linalg.norm(rewritten)
        ),
        kl=float(max(0.0, (p * np.log(p / q)).sum(-1).mean())),
        top1=float((original.argmax(-1) == rewritten.argmax(-1)).mean()),
    )


class Block:
    """RMSNorm, softmax attention and a SiLU gate, `layers` times, with replaceable functions."""

    def __init__(self, layers: int, seed: int = 7) -> None:
        random = np.random.default_rng(seed)
        self.weights = [random.normal(size=(4, 32, 32)) / 32**0.5 for _ in range(layers)]
        self.head = random.normal(size=(32, 64))
        self.x = random.normal(size=(48, 32)) * np.geomspace(0.05, 3, 48)[:, None]

    def run(self, functions: dict[tuple[str, int], Function]) -> tuple[Array, dict[str, Array]]:
        seen: dict[str, Array] = {}

        def apply(name: str, layer: int, x: Array) -> Array:
            seen[f"{name}/{layer}"] = x
            return functions.get((name, layer), EXACT[name])(x)

        x = self.x
        for layer, (query, key, gate, up) in enumerate(self.weights):
            norm = x * apply("rsqrt", layer, (x**2).mean(-1, keepdims=True) + 1e-5)
            scores = (norm @ query) @ (norm @ key).T / 32**0.5
            powers = apply("exp", layer, scores - scores.max(-1, keepdims=True))
            x = x + powers / powers.sum(-1, keepdims=True) @ norm
            gated = norm @ gate
            x = x + gated * apply("sigmoid", layer, gated) * (norm @ up)
        return x @ self.head, seen


def sample_report(layers: int = 4, approximants_per_function: int = 2) -> Report:
    """A report with 3 * `layers` sites; `layers` at least `approximants_per_function`."""
    block = Block(layers)
    original, seen = block.run({})
    records: list[ApproximantRecord] = []
    evaluators: dict[tuple[str, int], Function] = {}
    sites: list[SiteRecord] = []
    names = {
        "rsqrt": ("rsqrt", "rms_norm", "input_layernorm"),
        "exp": ("exp", "softmax", "self_attn"),
        "sigmoid": ("silu", "silu", "mlp.act_fn"),
    }
    for function, (pass_name, pattern, module) in names.items():
        for variant in range(approximants_per_function):
            mine = range(variant, layers, approximants_per_function)
            inputs = np.concatenate([seen[f"{function}/{layer}"].ravel() for layer in mine])
            low, high = float(inputs.min()), float(inputs.max())
            key = f"{function}-{variant + 1}"
            if function == "exp":
                domain = (1.1 * low, 0.0)
                evaluate = exp_squaring(3 + variant)
                record = approximant(
                    key, function, "pade", f"Pade [2/2] with {3 + variant} squarings",
                    r"\left(\frac{1 + \frac{y}{2} + \frac{y^{2}}{12}}"
                    r"{1 - \frac{y}{2} + \frac{y^{2}}{12}}\right)"
                    f"^{{{2 ** (3 + variant)}}}",
                    domain, evaluate, (7 + variant, 4, 1),
                )  # fmt: skip
            elif function == "rsqrt":
                domain = (low / 1.5, high * 1.5)
                evaluate = rsqrt_newton(*domain, 5 + variant)
                record = approximant(
                    key, function, "newton", f"Heron's iteration, {5 + variant} steps from a line",
                    "", domain, evaluate, (6, 6, 6 + variant),
                )  # fmt: skip
            else:
                domain = (-max(-low, high) * 1.1, max(-low, high) * 1.1)
                evaluate = chebyshev(sigmoid, *domain, 15 + 2 * variant)
                record = approximant(
                    key, function, "chebyshev",
                    f"Chebyshev interpolant of degree {15 + 2 * variant}",
                    r"\frac{1}{2} + 0.24872 x - 0.019941 x^{3} + 0.0014327 x^{5} - 6.8213 \cdot "
                    r"10^{-5} x^{7}",
                    domain, evaluate, (16 + variant, 15, 0),
                )  # fmt: skip
            records.append(record)
            for layer in mine:
                evaluators[function, layer] = evaluate
                x = seen[f"{function}/{layer}"]
                error = np.abs(evaluate(x) - EXACT[function](x))
                counts, edges = np.histogram(x, bins=64)
                sites.append(
                    SiteRecord(
                        id=f"{pass_name}/{layer}/{function}",
                        pass_name=pass_name,
                        pattern=pattern,
                        function=function,
                        node=f"/model/layers.{layer}/{module.replace('.', '/')}/{pattern}_{layer}",
                        module_path=f"model.layers.{layer}.{module}",
                        graph="",
                        elements=x.size,
                        observed=(float(x.min()), float(x.max())),
                        domain=domain,
                        guard="clip" if function == "sigmoid" else "none",
                        approximant=key,
                        observed_absolute_error=float(error.max()),
                        observed_relative_error=float((error / EXACT[function](x)).max()),
                        histogram=Histogram(edges.tolist(), counts.tolist()),
                    )
                )
    passes: list[PassRecord] = []
    done: dict[tuple[str, int], Function] = {}
    for function, (pass_name, pattern, _) in names.items():
        own = {key: value for key, value in evaluators.items() if key[0] == function}
        done |= own
        passes.append(
            PassRecord(
                name=pass_name,
                options={"error": 1e-5, "scheme": "auto", "guard": "none"},
                patterns={pattern: layers},
                sites=layers,
                isolated={"logits": metrics(original, block.run(own)[0])},
                cumulative={"logits": metrics(original, block.run(done)[0])},
                seconds=0.013 * layers,
            )
        )
    passes[0].skipped = [
        Skipped(
            f"/model/layers.{layer}/quant/Reciprocal",
            "Reciprocal",
            "input is not Sqrt but ReduceMax: the scale of an activation quantiser, not a norm",
        )
        for layer in range(3)
    ]
    exact = Metrics(0.0, 0.0, 0.0, 1.0, 0.0, 1.0)
    passes.append(
        PassRecord(
            name="rope",
            options={"positions": "auto"},
            patterns={"rotary_embedding": 1},
            folded=9,
            isolated={"logits": exact},
            cumulative=dict(passes[-1].cumulative),
            seconds=0.004,
            notes=[
                "positions are known at export: 48 x 32 cosines and sines folded into constants"
            ],
        )
    )
    return Report(
        version="0.1.0",
        model=ModelRecord(
            path="models/attention-block.onnx",
            opset_before=17,
            opset_after=12,
            nodes_before=41 * layers,
            nodes_after=118 * layers,
            parameters=4096 * layers + 2048,
            inputs={"input_ids": [1, 48], "attention_mask": [1, 48]},
            ops_before={
                "MatMul": 6 * layers + 1, "Add": 8 * layers, "Mul": 7 * layers,
                "ReduceMean": layers, "Sqrt": layers, "Reciprocal": layers + 3, "Pow": layers,
                "Softmax": layers, "Sigmoid": layers, "Sin": 1, "Cos": 1, "Reshape": 4 * layers,
                "Transpose": 4 * layers, "Gather": 1, "com.microsoft::RotaryEmbedding": 2,
            },
            ops_after={
                "MatMul": 6 * layers + 1, "Add": 31 * layers, "Mul": 46 * layers, "Div": 7 * layers,
                "Sub": 6 * layers, "ReduceMean": layers, "ReduceMax": layers, "ReduceSum": layers,
                "Clip": layers, "Reciprocal": 3, "Reshape": 4 * layers, "Transpose": 4 * layers,
                "Gather": 1, "Concat": 2, "Slice": 4,
            },
            transcendental_before={
                "Sqrt": layers, "Softmax": layers, "Sigmoid": layers, "Sin": 1, "Cos": 1,
                "com.microsoft::RotaryEmbedding": 2,
            },
            transcendental_after={},
        ),
        calibration={"source": "generated", "samples": 48, "margin": 0.1},
        passes=passes,
        sites=sites,
        approximants=records,
        total={"logits": metrics(original, block.run(evaluators)[0])},
        warnings=[
            "calibrated on generated inputs: the ranges of real data may be wider; "
            "give real inputs with --calibrate data.npz"
        ],
    )  # fmt: skip


if __name__ == "__main__":
    from odp.rewriter.report_html import render_html

    count = int(sys.argv[2]) if len(sys.argv) > 2 else 4
    Path(sys.argv[1]).write_text(
        render_html(sample_report(count, min(13, max(2, count // 10)))), encoding="utf-8"
    )
