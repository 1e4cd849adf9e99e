"""The activation functions that a recurrent layer may name, as emitted expressions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from odp.passes.exponential_unit import exponential_unit
from odp.rewriter.graph import Value
from odp.rewriter.rewrite_pass import Refusal
from odp.rewriter.site import SiteBuilder

__all__ = ["Activation", "activations_of"]


@dataclass(frozen=True)
class Activation:
    """One activation of a recurrent layer with its parameters."""

    kind: str
    alpha: float
    beta: float

    def emit(self, x: Value, build: SiteBuilder, share: str) -> Value:
        """Emit the activation at `x`; all emissions with one `share` have one domain."""
        return _EMITTERS[self.kind](self, x, build, share)


def activations_of(
    names: Sequence[str], alphas: Sequence[float], betas: Sequence[float]
) -> list[Activation]:
    """Pair activations with their parameters.

    The lists of parameters have an entry only for the activations that use one, in order; where
    they end early the default of the function holds.

    Args:
        names: of all directions, in any case: `Sigmoid`, `tanh`.
        alphas: values for the functions that have an alpha.
        betas: values for the functions that have a beta.

    Raises:
        Refusal: a name is not known.
    """
    known = {kind.lower(): kind for kind in _EMITTERS}
    alpha_values, beta_values = iter(alphas), iter(betas)
    result = []
    for name in names:
        kind = known.get(name.lower())
        if kind is None:
            raise Refusal(f"the activation {name} is none of {', '.join(_EMITTERS)}")
        alpha, beta = _DEFAULTS.get(kind, (None, None))
        result.append(Activation(kind, _take(alpha_values, alpha), _take(beta_values, beta)))
    return result


def _take(values: Iterator[float], default: float | None) -> float:
    return 0.0 if default is None else next(values, default)


def _sigmoid(layer: Activation, x: Value, build: SiteBuilder, share: str) -> Value:
    del layer
    return build.function("sigmoid", x, share=share)


def _tanh(layer: Activation, x: Value, build: SiteBuilder, share: str) -> Value:
    del layer
    return build.function("tanh", x, share=share)


def _scaled_tanh(layer: Activation, x: Value, build: SiteBuilder, share: str) -> Value:
    inner = build.function("tanh", build.mul(x, layer.beta), share=share)
    return build.mul(inner, layer.alpha)


def _relu(layer: Activation, x: Value, build: SiteBuilder, share: str) -> Value:
    del layer, share
    return build.op("relu", x)


def _leaky_relu(layer: Activation, x: Value, build: SiteBuilder, share: str) -> Value:
    del share
    negative = build.mul(build.op("clip", x, high=0.0), layer.alpha)
    return build.add(build.op("relu", x), negative)


def _affine(layer: Activation, x: Value, build: SiteBuilder, share: str) -> Value:
    del share
    return build.add(build.mul(x, layer.alpha), layer.beta)


def _hard_sigmoid(layer: Activation, x: Value, build: SiteBuilder, share: str) -> Value:
    line = _affine(layer, x, build, share)
    return build.op("clip", line, low=0.0, high=1.0)


def _softsign(layer: Activation, x: Value, build: SiteBuilder, share: str) -> Value:
    del layer, share
    return build.div(x, build.add(build.op("abs", x), 1.0))


def _softplus(layer: Activation, x: Value, build: SiteBuilder, share: str) -> Value:
    del layer
    tail = build.function("softplus_tail", build.op("abs", x), replaces="log", share=share)
    return build.add(build.op("relu", x), tail)


def _elu(layer: Activation, x: Value, build: SiteBuilder, share: str) -> Value:
    return exponential_unit(x, build, gain=1.0, alpha=layer.alpha, width=1.0, share=share)


_EMITTERS: dict[str, Callable[[Activation, Value, SiteBuilder, str], Value]] = {
    "Sigmoid": _sigmoid,
    "Tanh": _tanh,
    "Relu": _relu,
    "HardSigmoid": _hard_sigmoid,
    "LeakyRelu": _leaky_relu,
    "ScaledTanh": _scaled_tanh,
    "Affine": _affine,
    "Elu": _elu,
    "Softsign": _softsign,
    "Softplus": _softplus,
}

# Alpha and beta where the function has them; the values that ONNX Runtime assumes.
_DEFAULTS: dict[str, tuple[float | None, float | None]] = {
    "HardSigmoid": (0.2, 0.5),
    "LeakyRelu": (0.01, None),
    "ScaledTanh": (1.0, 1.0),
    "Affine": (1.0, 0.0),
    "Elu": (1.0, None),
}
