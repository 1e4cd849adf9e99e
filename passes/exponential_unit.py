"""What ELU, SELU and CELU share: a line on the right, a saturating exponential on the left."""

from __future__ import annotations

from odp.approximations.interval import Interval
from odp.rewriter.graph import Value
from odp.rewriter.site import SiteBuilder

__all__ = ["exponential_unit"]

_NON_POSITIVE = Interval(float("-inf"), 0.0)


def exponential_unit(
    x: Value,
    build: SiteBuilder,
    *,
    gain: float,
    alpha: float,
    width: float,
    share: str | None = None,
) -> Value:
    """Emit `gain * (relu(x) + alpha * (exp(min(x, 0) / width) - 1))`.

    The two branches meet at zero, where both terms vanish, so no comparison is needed.
    """
    negative = build.op("clip", x, high=0.0)
    scaled = negative if width == 1.0 else build.mul(negative, 1.0 / width)
    decay = build.function("exp", scaled, domain=_NON_POSITIVE, share=share)
    left = build.mul(build.sub(decay, 1.0), alpha)
    both = build.add(build.op("relu", x), left)
    return both if gain == 1.0 else build.mul(both, gain)
