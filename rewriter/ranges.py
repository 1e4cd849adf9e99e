"""Calibrated ranges as a file: what every site saw, and on which model and data.

Calibration is the slow part of a rewrite.  Its result is small, and it is worth keeping: ranges
that were found once on a thousand texts choose the expressions for every error budget and target
afterwards.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from odp.approximations.errors import OdpError
from odp.rewriter.calibration import Observation
from odp.rewriter.site import Site

__all__ = ["Ranges", "places_of", "read_ranges"]

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
        places: site id to the path of its module and its function, by which a site is found again
            in a graph of the same model that numbers its sites otherwise.
    """

    model: str
    data: str
    source: str
    samples: int
    observations: Mapping[str, Observation]
    places: Mapping[str, tuple[str, str]]

    def to_json(self) -> str:
        """The ranges as JSON; of the inputs of a site 65 quantiles are kept."""
        sites = {
            site_id: {"module": self.places[site_id][0], "function": self.places[site_id][1]}
            | _plain(seen)
            for site_id, seen in self.observations.items()
        }
        head = {
            "format": _FORMAT,
            "model": self.model,
            "data": self.data,
            "source": self.source,
            "samples": self.samples,
        }
        return json.dumps(head | {"sites": sites}, indent=1)

    def matching(
        self, sites: Mapping[str, Site], model: str
    ) -> tuple[dict[str, Observation], list[str]]:
        """The observations for the sites of a model.

        A site that has no entry under its id gets what all sites of its module and function saw.

        Args:
            sites: the sites that need a range, by id.
            model: fingerprint of the model.

        Returns:
            Observations by site id, and a warning if the model has other weights.

        Raises:
            OdpError: a site has no range: other passes, or another architecture.
        """
        found: dict[str, Observation] = {}
        for site_id, site in sites.items():
            known = self.observations.get(site_id) or self.at(site.module_path, site.function)
            if known is None:
                where = f" in {site.module_path}" if site.module_path else ""
                raise OdpError(
                    f"the ranges from {self.source} have no entry for {site.function}{where} "
                    f"(site {site_id}): they belong to another model or to other passes; "
                    "calibrate again"
                )
            found[site_id] = known
        if model == self.model:
            return found, []
        return found, [
            "the ranges were calibrated on other weights than those of this model; "
            "inputs outside of them are clipped"
        ]

    def at(self, module: str, function: str) -> Observation | None:
        """What all sites of one function in one module saw together; None if there is none."""
        seen = [
            observation
            for site_id, observation in self.observations.items()
            if self.places[site_id] == (module, function)
        ]
        if not seen or not module:
            return None
        together = Observation(unseen=seen[0].unseen)
        for one in seen:
            together.elements = max(together.elements, one.elements)
            together.masked |= one.masked
            together.undefined |= one.undefined
            together.minus_infinity |= one.minus_infinity
            if not one.is_empty:
                together.extend(one.low, one.high, one.samples)
        return together


def places_of(sites: Mapping[str, Site]) -> dict[str, tuple[str, str]]:
    """Module path and function of every site."""
    return {site_id: (site.module_path, site.function) for site_id, site in sites.items()}


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
        sites = content["sites"]
        observations = {key: _observation(seen) for key, seen in sites.items()}
        places = {key: (str(s["module"]), str(s["function"])) for key, s in sites.items()}
        return Ranges(
            str(content["model"]),
            str(content["data"]),
            str(content["source"]),
            int(content["samples"]),
            observations,
            places,
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
