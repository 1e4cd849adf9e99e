"""Calibrated ranges as a file: what every site saw, and on which model and data.

Calibration is the slow part of a rewrite.  Its result is small, and it is worth keeping: ranges
that were found once on a thousand texts choose the expressions for every error budget and target
afterwards.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from odp.approximations.errors import OdpError
from odp.rewriter.calibration import Observation

__all__ = ["Ranges", "read_ranges"]

_FORMAT = "odp-ranges-1"
_QUANTILES = 65


@dataclass(frozen=True)
class Ranges:
    """What the sites of one model saw.

    Attributes:
        model: fingerprint of the structure and the weights of the model.
        data: fingerprint of the inputs, in the order in which they were run.
        source: where the inputs came from, for a person.
        samples: number of inputs that were run.
        observations: by site id.
    """

    model: str
    data: str
    source: str
    samples: int
    observations: Mapping[str, Observation]

    def to_json(self) -> str:
        """The ranges as JSON; of the inputs of a site 65 quantiles are kept."""
        sites = {site_id: _plain(seen) for site_id, seen in self.observations.items()}
        head = {"format": _FORMAT, **asdict(self)} | {"observations": sites}
        return json.dumps(head, indent=1)

    def matching(
        self, sites: Iterable[str], model: str
    ) -> tuple[dict[str, Observation], list[str]]:
        """The observations for the sites of a model.

        Args:
            sites: ids of the sites that need one.
            model: fingerprint of the model.

        Returns:
            Observations by site id, and a warning if the model has other weights.

        Raises:
            OdpError: a site has no range: other passes, or another architecture.
        """
        wanted = list(sites)
        missing = [site_id for site_id in wanted if site_id not in self.observations]
        if missing:
            raise OdpError(
                f"the ranges from {self.source} have no entry for site '{missing[0]}' and "
                f"{len(missing) - 1} others: they belong to another model or to other passes; "
                "calibrate again"
            )
        found = {site_id: self.observations[site_id] for site_id in wanted}
        if model == self.model:
            return found, []
        return found, [
            "the ranges were calibrated on other weights than those of this model; "
            "inputs outside of them are clipped"
        ]


def read_ranges(path: Path) -> Ranges:
    """Read what `Ranges.to_json` wrote.

    Raises:
        OdpError: the file is missing or is no file of ranges.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise OdpError(f"cannot read ranges '{path}': {error.strerror or error}") from None
    except ValueError as error:
        raise OdpError(f"'{path}' is no file of ranges: {error}") from None
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise OdpError(f"'{path}' is no file of ranges: it does not say format {_FORMAT}")
    try:
        observations = {key: _observation(seen) for key, seen in content["observations"].items()}
        return Ranges(
            str(content["model"]),
            str(content["data"]),
            str(content["source"]),
            int(content["samples"]),
            observations,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise OdpError(f"ranges '{path}' are damaged: {error!r}") from None


def _plain(seen: Observation) -> dict[str, Any]:
    quantiles: list[float] = []
    if seen.samples.size:
        levels = np.linspace(0.0, 1.0, _QUANTILES)
        quantiles = [float(q) for q in np.quantile(seen.samples, levels)]
    return {
        "low": None if seen.is_empty else seen.low,
        "high": None if seen.is_empty else seen.high,
        "elements": seen.elements,
        "masked": seen.masked,
        "undefined": seen.undefined,
        "minus_infinity": seen.minus_infinity,
        "unseen": seen.unseen,
        "quantiles": quantiles,
    }


def _observation(plain: Mapping[str, Any]) -> Observation:
    seen = Observation(
        elements=int(plain["elements"]),
        masked=bool(plain["masked"]),
        undefined=bool(plain["undefined"]),
        minus_infinity=bool(plain["minus_infinity"]),
        unseen=str(plain["unseen"]),
    )
    if plain["low"] is not None:
        quantiles = np.asarray(plain["quantiles"], np.float64)
        seen.extend(float(plain["low"]), float(plain["high"]), quantiles)
    return seen
