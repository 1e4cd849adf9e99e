"""Short integers are int64, and what comes out is what Python integers give."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from odp.backends.ezkl.circuit import Node, apply
from odp.backends.ezkl.exact_integers import bits_of, exact, rescaled, shifted, whole_numbers

Array = NDArray[Any]

KINDS: dict[str, tuple[int, dict[str, Any]]] = {
    "add": (2, {}),
    "sub": (2, {}),
    "mul": (2, {}),
    "matmul": (2, {}),
    "neg": (1, {}),
    "sum": (1, {"axes": (1,)}),
    "reduce_max": (1, {"axes": (0,)}),
    "max": (2, {}),
    "min": (2, {}),
    "relu": (1, {}),
    "abs": (1, {}),
    "transpose": (1, {"order": (1, 0)}),
}


@st.composite
def integers(draw: st.DrawFn) -> Array:
    """4 x 4 Python integers of up to so many bits, the longest ones among them."""
    bits = draw(st.sampled_from([1, 20, 26, 27, 31, 32, 52, 53, 60, 61, 62, 63, 64, 100]))
    most = 2**bits - 1
    generator = random.Random(draw(st.integers(0, 2**32)))
    edges = draw(st.sampled_from([0.0, 0.5, 1.0]))
    values = [
        generator.choice([most, -most])
        if generator.random() < edges
        else generator.randint(-most, most)
        for _ in range(16)
    ]
    return np.array(values, object).reshape(4, 4)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_an_operation_is_exact(kind: str, data: st.DataObject) -> None:
    count, attributes = KINDS[kind]
    operands = [data.draw(integers()) for _ in range(count)]
    if kind == "matmul":
        # By definition, not by our own product of Python integers.
        wanted = sum(operands[0][:, k : k + 1] * operands[1][k : k + 1] for k in range(4))
    else:
        wanted = apply(kind, operands, attributes)
    found = exact(Node(kind, (), wanted.shape, attributes), operands)
    assert [int(x) for x in found.flat] == [int(x) for x in wanted.flat]
    if found.dtype != object:
        assert found.dtype == np.int64


def test_short_integers_stay_int64() -> None:
    short = np.arange(16).reshape(4, 4)
    for kind, (count, attributes) in KINDS.items():
        node = Node(kind, (), (4, 4), attributes)
        assert exact(node, [short.astype(object)] * count).dtype == np.int64, kind


@given(integers(), st.integers(1, 70))
def test_rescaling_rounds_as_python_does(values: Array, k: int) -> None:
    slow = rescaled(values, k)
    if bits_of(values) < 63:
        quick = rescaled(values.astype(np.int64), k)
        assert quick.dtype == np.int64
        assert quick.tolist() == slow.tolist()
    nearest = [
        [-((-x + (1 << k >> 1)) >> k) if x < 0 else (x + (1 << k >> 1)) >> k for x in row]
        for row in values.tolist()
    ]
    if bits_of(values) <= 53:
        assert slow.tolist() == nearest


@given(integers(), st.integers(0, 70))
def test_shifts_are_exact(values: Array, shift: int) -> None:
    found = shifted(values, shift)
    assert [int(x) for x in found.flat] == [x << shift for x in values.flat]


def test_whole_numbers_beyond_int64_are_python_integers() -> None:
    assert whole_numbers(np.array([2.0**61, -3.0])).dtype == np.int64
    assert whole_numbers(np.array([2.0**70])).tolist() == [2**70]
