"""The registry of schemes, one file each."""

from __future__ import annotations

from types import MappingProxyType

from odp.approximations.schemes.angle_doubling import AngleDoublingScheme
from odp.approximations.schemes.caratheodory_fejer import CaratheodoryFejerScheme
from odp.approximations.schemes.chebyshev import ChebyshevScheme
from odp.approximations.schemes.chebyshev_pade import ChebyshevPadeScheme
from odp.approximations.schemes.composition import CompositionScheme
from odp.approximations.schemes.constant_chain import ConstantChainScheme
from odp.approximations.schemes.cosine_chain import CosineChainScheme
from odp.approximations.schemes.decay import DecayScheme
from odp.approximations.schemes.goldschmidt import GoldschmidtScheme
from odp.approximations.schemes.halley import HalleyScheme
from odp.approximations.schemes.heron import HeronScheme
from odp.approximations.schemes.logistic_chain import LogisticChainScheme
from odp.approximations.schemes.minimax import MinimaxScheme
from odp.approximations.schemes.multipoint_pade import MultipointPadeScheme
from odp.approximations.schemes.newton import NewtonScheme
from odp.approximations.schemes.pade import PadeScheme
from odp.approximations.schemes.scheme import Candidate, Request, Scheme
from odp.approximations.schemes.splitting import SplittingScheme
from odp.approximations.schemes.squaring import SquaringScheme
from odp.approximations.schemes.structural import StructuralScheme
from odp.approximations.schemes.taylor import TaylorScheme

__all__ = ["SCHEMES", "Candidate", "Request", "Scheme"]

_SCHEMES: tuple[Scheme, ...] = (
    NewtonScheme(),
    HeronScheme(),
    GoldschmidtScheme(),
    SquaringScheme(),
    ConstantChainScheme(),
    ChebyshevScheme(),
    PadeScheme(),
    MinimaxScheme(),
    ChebyshevPadeScheme(),
    AngleDoublingScheme(),
    SplittingScheme(),
    HalleyScheme(),
    CompositionScheme(),
    TaylorScheme(),
    MultipointPadeScheme(),
    CaratheodoryFejerScheme(),
    LogisticChainScheme(),
    CosineChainScheme(),
    StructuralScheme(),
    DecayScheme(),
)

SCHEMES: MappingProxyType[str, Scheme] = MappingProxyType({s.name: s for s in _SCHEMES})
"""Every scheme by name, in the order in which they are tried: the usual winners first, because a
candidate that is found prunes what costs more."""
