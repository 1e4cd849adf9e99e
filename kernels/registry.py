"""Every operator by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from odp.kernels.activations import ACTIVATIONS
from odp.kernels.normalisations import NORMALISATIONS
from odp.kernels.operator import Operator
from odp.kernels.softmax import SOFTMAX

__all__ = ["OPERATORS"]

OPERATORS: Mapping[str, Operator] = MappingProxyType(
    {operator.name: operator for operator in (*ACTIVATIONS, *NORMALISATIONS, *SOFTMAX)}
)
"""What generated kernels compute; rope and attention have kernels of their own."""
