"""How an expression is written out: source text, LaTeX, sympy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, cast

from odp.approximations.algebra import OperatorAlgebra

if TYPE_CHECKING:
    from odp.approximations.expression import Expression

__all__ = ["Notation"]


class Notation:
    """The written forms of an `Expression`, which inherits them."""

    __slots__ = ()

    def to_python(self, name: str = "f") -> str:
        """Source text of a Python function `name` with the same order of operations.

        >>> from odp.approximations import variable
        >>> print((variable("x") * 0.5 + 1).to_python())
        def f(x):
            return x * 0.5 + 1.0
        <BLANKLINE>
        """
        from odp.approximations.emitters.source_emitters import python_source

        return python_source(self._expression, name)

    def to_c(self, name: str = "f", dtype: Literal["float", "double"] = "float") -> str:
        """Source text of a C99 function `name` that computes the same bits as numpy in `dtype`.

        See `odp.approximations.emitters.source_emitters.c_source`.

        >>> from odp.approximations import variable
        >>> print((variable("x") * 0.1 + 1).to_c())
        /*
         * Compile with -ffp-contract=off for the same bits everywhere.
         */
        float f(float x)
        {
            const float c0 = 0x1.99999ap-4f;  /* 0.1 */
            return x * c0 + 1.0f;
        }
        <BLANKLINE>
        """
        from odp.approximations.emitters.source_emitters import c_source

        return c_source(self._expression, name, dtype)

    def to_triton(self, name: str = "f") -> str:
        """Source text of a Triton device function `name` on tensors.

        See `odp.approximations.emitters.source_emitters.triton_source`.
        """
        from odp.approximations.emitters.source_emitters import triton_source

        return triton_source(self._expression, name)

    def to_latex(self) -> str:
        """LaTeX; subexpressions that are used more than once get names in an ``aligned`` block."""
        from odp.approximations.emitters.latex_source import latex_source

        return latex_source(self._expression)

    def to_sympy(self) -> Any:
        """The same expression as a sympy expression with exact rational constants."""
        import sympy

        algebra = OperatorAlgebra(lambda value: sympy.Rational(value.numerator, value.denominator))
        names = self._expression.variables
        return self._expression.emit(algebra, **{name: sympy.Symbol(name) for name in names})

    def __repr__(self) -> str:
        from odp.approximations.emitters.source_emitters import one_line

        return f"Expression({one_line(self._expression)})"

    def _repr_latex_(self) -> str:
        """What notebooks show."""
        return rf"$\displaystyle {self.to_latex()}$"

    @property
    def _expression(self) -> Expression:
        return cast("Expression", self)
