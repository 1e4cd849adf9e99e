"""What every operator should compute, in float64, and how far its expressions may be from it.

A result of a kernel may differ from the reference by what its functions are certified to be off by
(`Reference.results`, `Reference.gradients`: derived by hand, operator by operator) and by the
roundings of float32 and of the type of the result (`running_error.py`: counted on the terms).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812

from odp.backends.triton.operators import defined
from odp.kernels.functions import KernelFunction, kernel_function
from odp.kernels.kernel import Kernel
from odp.kernels.registry import OPERATORS

from .running_error import Bound, exact, kernel_bounds, stored

__all__ = [
    "DOUBLE",
    "REFERENCES",
    "Case",
    "Reference",
    "case_of",
    "rotated",
    "rotation_error",
]

Tensors = Mapping[str, torch.Tensor]
Functions = Mapping[str, KernelFunction]

# Of an expression whose exp or log is reduced in float32, the operand may leave the interval of the
# proof by the rounding of x / log(2), 2^-24 * 127; by Markov's inequality a polynomial of degree 7
# grows there by less than 7^2 / 0.5 * 2^-24 * 127 of itself.
_BEYOND = 1 + 1e-3

DOUBLE = 2.0**-40
"""More than a thousand roundings in float64, of the largest number of a tensor."""

# The smallest power of two that exp gives; what is smaller stays there.
_CLIP = 2.0**-125


@dataclass(frozen=True)
class Reference:
    """One operator.

    Attributes:
        true: its results in float64 from its operands (differentiable).
        results: bounds on what the errors of functions do to the results: from functions, operands
            and the true results.
        gradients: likewise for gradients by operand: from functions, operands and the derivatives
            that come in, by name of the result.
        numbers: of its parameters that are no tensors.
        examples: how an operand is made that is not normally distributed: from the shape.
    """

    true: Callable[..., tuple[torch.Tensor, ...]]
    results: Callable[[Functions, Tensors, Sequence[torch.Tensor]], Sequence[torch.Tensor]]
    gradients: Callable[[Functions, Tensors, Tensors], Tensors] | None
    numbers: Mapping[str, Any] = field(default_factory=dict)
    examples: Mapping[str, Callable[[Sequence[int]], torch.Tensor]] = field(default_factory=dict)


def _absolute(function: KernelFunction) -> float:
    assert function.absolute_error is not None
    return function.absolute_error


def _relative(function: KernelFunction) -> float:
    assert function.relative_error is not None
    return function.relative_error


# Activations: x * s(x).  An error e of s is one of |x| e; with s + x s (1 - s) as the derivative it
# is e + |x (1 - 2 s)| e + |x| e^2 there.


def _silu_slope(functions: Functions, x: torch.Tensor, slope: Any = 1.0) -> torch.Tensor:
    e = _absolute(functions["sigmoid"])
    return e * (1 + (x * slope).abs() * (1 + e))


def _gelu_slope(functions: Functions, x: torch.Tensor) -> torch.Tensor:
    density = torch.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    e = _relative(functions["exp"])
    return _absolute(functions["normal_cdf"]) + x.abs() * (density * e + _CLIP)


def _gelu_tanh_slope(functions: Functions, x: torch.Tensor) -> torch.Tensor:
    root = math.sqrt(2 / math.pi)
    return _silu_slope(functions, x, 2 * root * (1 + 3 * 0.044715 * x * x))


def _no_error(functions: Functions, x: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(x)


def _gelu_tanh(x: torch.Tensor) -> torch.Tensor:
    return F.gelu(x, approximate="tanh")


def _relu_squared(x: torch.Tensor) -> torch.Tensor:
    return F.relu(x) ** 2


def _activation(true: Callable[..., Any], open_function: str | None, slope: Any) -> Reference:
    def value_error(functions: Functions, x: torch.Tensor) -> torch.Tensor:
        return x.abs() * (_absolute(functions[open_function]) if open_function else 0.0)

    return Reference(
        lambda x: (true(x),),
        lambda functions, operands, _: (value_error(functions, operands["x"]),),
        lambda functions, operands, d: {"x": d["y"].abs() * slope(functions, operands["x"])},
    )


def _gated(true: Callable[..., Any], open_function: str | None, slope: Any) -> Reference:
    def value_error(functions: Functions, x: torch.Tensor) -> torch.Tensor:
        return x.abs() * (_absolute(functions[open_function]) if open_function else 0.0)

    def gradients(functions: Functions, operands: Tensors, d: Tensors) -> Tensors:
        gate, up = operands["gate"], operands["up"]
        return {
            "gate": (d["y"] * up).abs() * slope(functions, gate),
            "up": d["y"].abs() * value_error(functions, gate),
        }

    return Reference(
        lambda gate, up: (true(gate) * up,),
        lambda f, operands, _: (value_error(f, operands["gate"]) * operands["up"].abs(),),
        gradients,
    )


# Softmax: numerator and denominator are off by a factor of 1 + e each, and by the clip of exp.


def _ratio(e: float) -> float:
    return (1 + e) / (1 - e) - 1


def _softmax(x: torch.Tensor, mask: torch.Tensor | None, scale: float) -> tuple[torch.Tensor]:
    return ((x * scale if mask is None else x * scale + mask).softmax(-1),)


def _causal_softmax(x: torch.Tensor, scale: float, offset: int) -> tuple[torch.Tensor]:
    rows, columns = x.shape[-2:]
    seen = torch.ones(rows, columns, dtype=torch.bool).tril(offset)
    found = (x * scale).masked_fill(~seen, -torch.inf).softmax(-1)
    # A row that sees nothing has no weights.
    return (torch.where(seen, found, 0.0),)


def _softmax_error(
    functions: Functions, operands: Tensors, results: Sequence[torch.Tensor]
) -> Sequence[torch.Tensor]:
    (y,) = results
    return (y * _ratio(_relative(functions["exp"])) + _CLIP * y.shape[-1],)


def _softmax_gradients(causal: bool) -> Any:
    def gradients(functions: Functions, operands: Tensors, d: Tensors) -> Tensors:
        scale = _NUMBERS["scale"]
        (y,) = (
            _causal_softmax(operands["x"], scale, _NUMBERS["offset"])
            if causal
            else _softmax(operands["x"], operands.get("mask"), scale)
        )
        r = _ratio(_relative(functions["exp"]))
        first = y * (d["y"] - (y * d["y"]).sum(-1, keepdim=True)).abs() * r
        second = y * (1 + r) * (y * d["y"].abs()).sum(-1, keepdim=True) * r
        clipped = _CLIP * y.shape[-1] * d["y"].abs().sum(-1, keepdim=True)
        error = first + second + clipped
        return {"x": error * scale, "mask": error}

    return gradients


def _cross_entropy(x: torch.Tensor, target: torch.Tensor, ignored: int) -> tuple[torch.Tensor]:
    flat = F.cross_entropy(
        x.reshape(-1, x.shape[-1]), target.reshape(-1), ignore_index=ignored, reduction="none"
    )
    return (flat.reshape(target.shape),)


def _cross_entropy_error(
    functions: Functions, operands: Tensors, results: Sequence[torch.Tensor]
) -> Sequence[torch.Tensor]:
    e = _relative(functions["exp"]) + _CLIP * operands["x"].shape[-1]
    bound = -math.log1p(-e) + _absolute(functions["log"])
    return (torch.where(operands["target"] == _NUMBERS["ignored"], 0.0, bound),)


def _cross_entropy_gradients(functions: Functions, operands: Tensors, d: Tensors) -> Tensors:
    counts = (operands["target"] != _NUMBERS["ignored"])[..., None]
    y = operands["x"].softmax(-1)
    error = y * _ratio(_relative(functions["exp"])) + _CLIP * y.shape[-1]
    return {"x": error * d["loss"].abs()[..., None] * counts}


# Norms: the inverse root is off by a factor of 1 + e, and stands once or three times in a gradient.


def _thrice(e: float) -> float:
    return (1 + e) ** 3 - 1


def _by_weight(x: torch.Tensor, operands: Tensors) -> torch.Tensor:
    return x if operands.get("weight") is None else x * operands["weight"]


def _rms_norm(x: torch.Tensor, weight: torch.Tensor | None, eps: float) -> tuple[torch.Tensor]:
    return (_by_weight(x * (x.square().mean(-1, keepdim=True) + eps).rsqrt(), {"weight": weight}),)


def _add_rms_norm(
    x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor | None, eps: float
) -> tuple[torch.Tensor, ...]:
    return (*_rms_norm(x + residual, weight, eps), x + residual)


def _rms_error(
    functions: Functions, operands: Tensors, results: Sequence[torch.Tensor]
) -> Sequence[torch.Tensor]:
    y, *rest = results
    return (y.abs() * _relative(functions["rsqrt"]), *map(torch.zeros_like, rest))


def _rms_gradients(functions: Functions, operands: Tensors, d: Tensors) -> Tensors:
    e = _relative(functions["rsqrt"])
    x = operands["x"] + operands["residual"] if "residual" in operands else operands["x"]
    inverse = (x.square().mean(-1, keepdim=True) + _NUMBERS["eps"]).rsqrt()
    weighted = _by_weight(d["y"], operands)
    shared = (x * weighted).mean(-1, keepdim=True)
    error = (weighted * inverse).abs() * e + (x * shared * inverse**3).abs() * _thrice(e)
    return {"x": error, "residual": error, "weight": e * _columns((d["y"] * x * inverse).abs())}


def _columns(x: torch.Tensor) -> torch.Tensor:
    return x.reshape(-1, x.shape[-1]).sum(0)


def _layer_norm(
    x: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None, eps: float
) -> tuple[torch.Tensor]:
    return (F.layer_norm(x, x.shape[-1:], weight, bias, eps),)


def _layer_error(
    functions: Functions, operands: Tensors, results: Sequence[torch.Tensor]
) -> Sequence[torch.Tensor]:
    (y,) = results
    bias = operands.get("bias")
    return ((y if bias is None else y - bias).abs() * _relative(functions["rsqrt"]),)


def _layer_gradients(functions: Functions, operands: Tensors, d: Tensors) -> Tensors:
    e = _relative(functions["rsqrt"])
    x = operands["x"] - operands["x"].mean(-1, keepdim=True)
    inverse = (x.square().mean(-1, keepdim=True) + _NUMBERS["eps"]).rsqrt()
    weighted = _by_weight(d["y"], operands)
    once = (weighted - weighted.mean(-1, keepdim=True)) * inverse
    shared = (x * inverse * weighted).mean(-1, keepdim=True)
    thrice = x * inverse * shared * inverse
    return {
        "x": once.abs() * e + thrice.abs() * _thrice(e),
        "weight": e * _columns((d["y"] * x * inverse).abs()),
        "bias": torch.zeros(x.shape[-1], dtype=torch.float64),
    }


def _quantised(
    x: torch.Tensor, weight: torch.Tensor | None, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Before it is rounded to integers."""
    (y,) = _rms_norm(x, weight, eps)
    scale = 127 / y.abs().amax(-1, keepdim=True).clamp_min(1e-5)
    return y * scale, scale[..., 0]


def _quantised_error(
    functions: Functions, operands: Tensors, results: Sequence[torch.Tensor]
) -> Sequence[torch.Tensor]:
    y, scale = results
    e = _relative(functions["rsqrt"])
    # The factor 1 + e of a row is in y and in its scale, unless the latter is at its bound.
    return (torch.full_like(y, 0.5) + 2 * e * y.abs(), scale * e / (1 - e))


def _targets(shape: Sequence[int]) -> torch.Tensor:
    found = torch.randint(0, shape[-1], tuple(shape[:-1]))
    if found.numel() > 2:
        found.reshape(-1)[1] = _NUMBERS["ignored"]
    return found


_NUMBERS: Mapping[str, Any] = {"eps": 1e-6, "scale": 0.75, "offset": 1, "ignored": -100}
_NORM = {name: _NUMBERS[name] for name in ("eps",)}
_SCALE = {name: _NUMBERS[name] for name in ("scale",)}

REFERENCES: Mapping[str, Reference] = {
    "silu": _activation(F.silu, "sigmoid", _silu_slope),
    "gelu": _activation(F.gelu, "normal_cdf", _gelu_slope),
    "gelu_tanh": _activation(_gelu_tanh, "sigmoid", _gelu_tanh_slope),
    "relu_squared": _activation(_relu_squared, None, _no_error),
    "swiglu": _gated(F.silu, "sigmoid", _silu_slope),
    "geglu": _gated(F.gelu, "normal_cdf", _gelu_slope),
    "geglu_tanh": _gated(_gelu_tanh, "sigmoid", _gelu_tanh_slope),
    "relu_squared_gate": _gated(_relu_squared, None, _no_error),
    "rms_norm": Reference(_rms_norm, _rms_error, _rms_gradients, _NORM),
    "add_rms_norm": Reference(_add_rms_norm, _rms_error, _rms_gradients, _NORM),
    "layer_norm": Reference(_layer_norm, _layer_error, _layer_gradients, _NORM),
    "rms_norm_quantised": Reference(_quantised, _quantised_error, None, _NORM),
    "softmax": Reference(_softmax, _softmax_error, _softmax_gradients(causal=False), _SCALE),
    "causal_softmax": Reference(
        _causal_softmax,
        _softmax_error,
        _softmax_gradients(causal=True),
        {**_SCALE, "offset": _NUMBERS["offset"]},
    ),
    "cross_entropy": Reference(
        _cross_entropy,
        _cross_entropy_error,
        _cross_entropy_gradients,
        {"ignored": _NUMBERS["ignored"]},
        {"target": _targets},
    ),
}
"""Every operator of the registry; a test says so if one is missing."""


@dataclass(frozen=True)
class Case:
    """An operator with operands, and everything that is known about its results.

    Attributes:
        name: of the operator.
        tensors: its operands; None for those that are not given.
        functions: how its functions are computed.
        division: how kernels divide.
        exact: whether derivatives are those of the approximations.
        truncated: whether bfloat16 results are cut off, as in the interpreter.
    """

    name: str
    tensors: Mapping[str, torch.Tensor | None]
    functions: Functions
    division: str = "full"
    exact: bool = False
    truncated: bool = False

    @property
    def reference(self) -> Reference:
        return REFERENCES[self.name]

    @property
    def given(self) -> frozenset[str]:
        return frozenset(name for name, x in self.tensors.items() if x is not None)

    @property
    def differentiable(self) -> list[str]:
        """Operands that are given and have a gradient."""
        operator = OPERATORS[self.name]
        names = [o.name for o in operator.operands if o.differentiable and o.name in self.given]
        return names if operator.backward is not None else []

    @property
    def shape(self) -> tuple[int, ...]:
        elements = [o.name for o in OPERATORS[self.name].operands if o.kind == "elements"]
        shapes = [x.shape for n in elements if (x := self.tensors[n]) is not None]
        return tuple(torch.broadcast_shapes(*shapes))

    @property
    def arguments(self) -> list[Any]:
        """Of the torch operator."""
        return [*self.tensors.values(), *self.parameters]

    @property
    def parameters(self) -> list[Any]:
        """Arguments that are no tensors."""
        texts = [self.functions[name].text for name in OPERATORS[self.name].functions]
        return [*self.reference.numbers.values(), *texts, self.division, self.exact]

    def run(self) -> tuple[torch.Tensor, ...]:
        """All outputs of the torch operator, those for the derivative alone, too."""
        found = defined[self.name].forward(*self.arguments)
        return found if isinstance(found, tuple) else (found,)

    def outputs(self) -> dict[str, torch.Tensor]:
        """The outputs by name."""
        names = [name for name, _ in OPERATORS[self.name].outputs]
        return dict(zip(names, self.run(), strict=True))

    def doubles(self) -> dict[str, torch.Tensor]:
        """The operands that are given, numbers in float64, broadcast to the shape of the result."""
        found = {}
        for operand in OPERATORS[self.name].operands:
            x = self.tensors[operand.name]
            if x is not None:
                wide = x.detach().double() if x.is_floating_point() else x
                found[operand.name] = (
                    wide.expand(self.shape) if operand.kind == "elements" else wide
                )
        return found

    def true(self, operands: Tensors | None = None) -> tuple[torch.Tensor, ...]:
        """The results that the user asked for, in float64."""
        operands = self.doubles() if operands is None else operands
        tensors = {name: operands.get(name) for name in self.tensors}
        return self.reference.true(**tensors, **self.reference.numbers)

    def true_gradients(self, incoming: Tensors) -> dict[str, torch.Tensor]:
        """Gradients of the true function, by operand, of the shape of the result."""
        operands = self.doubles()
        for name in self.differentiable:
            operands[name] = operands[name].clone().requires_grad_()
        pairs = [
            (result, incoming[name])
            for result, (name, _) in zip(
                self.true(operands), OPERATORS[self.name].outputs, strict=False
            )
        ]
        grads = torch.autograd.grad(
            [result for result, _ in pairs],
            [operands[name] for name in self.differentiable],
            [d.double() for _, d in pairs],
        )
        return dict(zip(self.differentiable, grads, strict=True))

    def function_errors(self) -> Sequence[torch.Tensor]:
        """What the certified errors of functions may do to the results."""
        errors = self.reference.results(self.functions, self.doubles(), self.true())
        return [error * _BEYOND for error in errors]

    def gradient_function_errors(self, incoming: Tensors) -> Tensors:
        """What they may do to the gradients."""
        assert self.reference.gradients is not None
        wide = {name: d.double() for name, d in incoming.items()}
        errors = self.reference.gradients(self.functions, self.doubles(), wide)
        return {name: errors[name] * _BEYOND for name in self.differentiable}

    def forward_bounds(self) -> dict[str, Bound]:
        """Every output of the forward kernel as it is stored, in exact arithmetic and float32."""
        kernel = OPERATORS[self.name].forward_kernel(self.functions, self.given)
        bounds = self._bounds(kernel, {})
        dtypes = {name: self._dtype(name, kind) for name, kind in OPERATORS[self.name].outputs}
        return {n: stored(bound, dtypes[n], self.truncated) for n, bound in bounds.items()}

    def backward_bounds(self, incoming: Tensors) -> dict[str, Bound]:
        """Gradients, by operand, before they are added up over what was broadcast."""
        operator = OPERATORS[self.name]
        wanted = frozenset(self.differentiable)
        kernel = operator.backward_kernel(self.functions, self.given, wanted, self.exact)
        forward = self.forward_bounds()
        extra = {f"d_{name}": exact(d) for name, d in incoming.items()}
        extra |= {name: forward[name] for name in operator.saved}
        found = {}
        for name, bound in self._bounds(kernel, extra).items():
            operand = name.removeprefix("d_")
            tensor = self.tensors[operand]
            assert tensor is not None
            found[operand] = stored(bound, tensor.dtype, self.truncated)
        return found

    def _bounds(self, kernel: Kernel, extra: Mapping[str, Bound]) -> dict[str, Bound]:
        operands: dict[str, Any] = dict(self.reference.numbers) | dict(extra)
        for name, x in self.doubles().items():
            operands.setdefault(name, exact(x) if x.is_floating_point() else x)
        used = {name: operands[name] for name in kernel.operands}
        return kernel_bounds(kernel, used, self.shape, self.division)

    def _dtype(self, name: str, kind: str) -> torch.dtype:
        own = OPERATORS[self.name].dtypes or {}
        if name in own:
            return getattr(torch, own[name])
        first = next(x for x in self.tensors.values() if x is not None)
        return torch.float32 if kind == "row" else first.dtype


def case_of(
    name: str,
    shape: Sequence[int],
    dtype: torch.dtype = torch.float32,
    *,
    error: float = 1e-4,
    optional: bool = True,
    **options: Any,
) -> Case:
    """An operator on random operands.

    Args:
        name: of the operator.
        shape: of the result.
        dtype: of its tensors of numbers.
        error: of its functions.
        optional: whether optional operands are given.
        **options: other attributes of `Case`.
    """
    operator, reference = OPERATORS[name], REFERENCES[name]
    tensors: dict[str, torch.Tensor | None] = {}
    for operand in operator.operands:
        if operand.optional and not optional:
            tensors[operand.name] = None
        elif operand.name in reference.examples:
            tensors[operand.name] = reference.examples[operand.name](shape)
        else:
            extents = tuple(shape[-1:] if operand.kind == "column" else shape)
            tensors[operand.name] = (torch.randn(extents) * 2).to(dtype)
    functions = {function: kernel_function(function, error) for function in operator.functions}
    return Case(name, tensors, functions, **options)


# Rope rotates pairs of channels; two products and a sum are three roundings, two on each path.


def rotated(
    x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, interleaved: bool
) -> torch.Tensor:
    """Queries or keys in float64, rotated as transformers (or GPT-J) does; differentiable."""
    cos, sin = (t.double() if t.dim() == 3 else t.double()[None] for t in (cos, sin))
    x, width = x.double(), cos.shape[-1]
    a, rest = x[..., :width], x[..., width:]
    return torch.cat([a * cos[:, None] + _turned(a, interleaved) * sin[:, None], rest], -1)


def _turned(a: torch.Tensor, interleaved: bool) -> torch.Tensor:
    if interleaved:
        return torch.stack([-a[..., 1::2], a[..., ::2]], -1).flatten(-2)
    half = a.shape[-1] // 2
    return torch.cat([-a[..., half:], a[..., :half]], -1)


def rotation_error(
    expected: torch.Tensor, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, interleaved: bool
) -> torch.Tensor:
    """How far the interpreter may be from a rotation of `x` (forward or backward) in its type."""
    wide = x.double().abs()
    tables = [t.double() if t.dim() == 3 else t.double()[None] for t in (cos, sin)]
    width = cos.shape[-1]
    products = wide[..., :width] * tables[0][:, None].abs()
    turned = _turned(wide[..., :width], interleaved).abs()
    products = products + turned * tables[1][:, None].abs()
    error = torch.zeros_like(wide)
    error[..., :width] = (2.0**-23 + 2.0**-48) * products
    return stored(Bound(expected, error), x.dtype, truncated=True).error
