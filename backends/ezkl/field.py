"""Integers as elements of the field that EZKL computes in, as its files write them."""

from __future__ import annotations

__all__ = ["MODULUS", "from_field", "to_field"]

MODULUS = 21888242871839275222246405745257275088548364400416034343698204186575808495617
"""Order of the scalar field of the curve BN254."""


def to_field(integer: int) -> str:
    """An integer as 64 hexadecimal digits, least significant byte first.

    Args:
        integer: any; negative ones are counted down from the modulus.

    Examples:
        >>> to_field(258)[:8]
        '02010000'
        >>> from_field(to_field(-3))
        -3
    """
    return (int(integer) % MODULUS).to_bytes(32, "little").hex()


def from_field(digits: str) -> int:
    """The integer of least magnitude that is a field element.

    Args:
        digits: as `to_field` writes them.

    Raises:
        ValueError: they are no hexadecimal digits.
    """
    element = int.from_bytes(bytes.fromhex(digits), "little")
    return element if element <= MODULUS // 2 else element - MODULUS
