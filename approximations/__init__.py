"""Rational approximations of real functions: pure mathematics, no neural networks.

`approximate` chooses the cheapest `Expression` for a `Function` on an `Interval`; the result is an
`Approximant`.  sympy, mpmath and scipy are imported only where they are used.
"""

from odp.approximations.algebra import Algebra, OperatorAlgebra
from odp.approximations.approximant import Approximant, Parameters
from odp.approximations.choose import approximate
from odp.approximations.errors import ApproximationError, OdpError
from odp.approximations.expression import Expression, OperationCounts, constant, variable
from odp.approximations.functions.function import Function
from odp.approximations.functions.registry import FUNCTIONS, get_function, power
from odp.approximations.interval import Interval
from odp.approximations.minimax_approximant import MinimaxApproximant, MinimaxFit, minimax
from odp.approximations.pareto import limits, pareto
from odp.approximations.schemes import SCHEMES
from odp.approximations.target import TARGETS, Target, get_target
from odp.approximations.tolerance import Histogram, Tolerance

__all__ = [
    "FUNCTIONS",
    "SCHEMES",
    "TARGETS",
    "Algebra",
    "Approximant",
    "ApproximationError",
    "Expression",
    "Function",
    "Histogram",
    "Interval",
    "MinimaxApproximant",
    "MinimaxFit",
    "OdpError",
    "OperationCounts",
    "OperatorAlgebra",
    "Parameters",
    "Target",
    "Tolerance",
    "approximate",
    "constant",
    "get_function",
    "get_target",
    "limits",
    "minimax",
    "pareto",
    "power",
    "variable",
]
