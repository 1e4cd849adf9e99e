"""Fixed point: expressions as integer programs, with an error bound that includes all rounding."""

from odp.approximations.fixed_point.certified import (
    CertifiedProgram,
    FixedPointCertificate,
    lower,
    rounding_limit,
)
from odp.approximations.fixed_point.choice import FixedPointChoice, best_fixed_point
from odp.approximations.fixed_point.enumeration import ExhaustiveError, exhaustive_error
from odp.approximations.fixed_point.lowering import lower_expression
from odp.approximations.fixed_point.program import FixedPointProgram, Step
from odp.approximations.fixed_point.refusal import FixedPointRefusal
from odp.approximations.fixed_point.rounding_analysis import RoundingAnalysis, analyse

__all__ = [
    "CertifiedProgram",
    "ExhaustiveError",
    "FixedPointCertificate",
    "FixedPointChoice",
    "FixedPointProgram",
    "FixedPointRefusal",
    "RoundingAnalysis",
    "Step",
    "analyse",
    "best_fixed_point",
    "exhaustive_error",
    "lower",
    "lower_expression",
    "rounding_limit",
]
