"""The ways in which exporters write the same small piece of mathematics, as patterns."""

from __future__ import annotations

from odp.rewriter.pattern import Pattern, number, op

__all__ = ["inverse_root", "negative", "product_of_three", "root", "square"]


def square(x: Pattern) -> Pattern:
    """`x**2` as Mul(x, x) or Pow(x, 2)."""
    return op("mul", x, x) | op("pow", x, number(2.0))


def inverse_root(x: Pattern) -> Pattern:
    """`x**-0.5` as Rsqrt, Reciprocal(Sqrt), Div(1, Sqrt), Sqrt(Reciprocal) or Pow(x, -0.5)."""
    return (
        op("rsqrt", x)
        | op("reciprocal", op("sqrt", x))
        | op("div", number(1.0), op("sqrt", x))
        | op("sqrt", op("reciprocal", x))
        | op("pow", x, number(-0.5))
        | op("reciprocal", op("pow", x, number(0.5)))
    )


def negative(x: Pattern) -> Pattern:
    """`-x` as Neg, Mul(x, -1) or Sub(0, x)."""
    return op("neg", x) | op("mul", x, number(-1.0)) | op("sub", number(0.0), x)


def root(x: Pattern) -> Pattern:
    """`x**0.5` as Sqrt or Pow(x, 0.5)."""
    return op("sqrt", x) | op("pow", x, number(0.5))


def product_of_three(a: Pattern, b: Pattern, c: Pattern) -> Pattern:
    """The product of three factors in any order and association."""
    return (
        op("mul", op("mul", a, b), c)
        | op("mul", op("mul", a, c), b)
        | op("mul", op("mul", b, c), a)
    )
