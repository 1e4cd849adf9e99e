"""The settings that decide what a circuit of EZKL costs, with EZKL's own defaults."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import ezkl

__all__ = ["RunArguments", "Visibility"]

Visibility = Literal["public", "private", "fixed", "hashed", "polycommit"]

# `rebase_scale` is in EZKL's settings but not in its Python class; it can be read, not set.
_UNSETTABLE = frozenset({"rebase_scale"})


@dataclass(frozen=True)
class RunArguments:
    """How EZKL turns a graph into a circuit.

    Attributes:
        input_scale: bits after the point of every float input.
        param_scale: bits after the point of every float constant.
        scale_rebase_multiplier: an operation's output is divided down to
            max(input_scale, param_scale) times this when its label is above it.
        rebase_scale: takes the place of max(input_scale, param_scale) there.
        lookup_range: smallest and largest integer in a table of a non-linear function.
        logrows: log2 of the rows of the circuit.
        num_inner_cols: columns in which the elements of one tensor lie side by side.
        decomp_base: radix of the digits in range checks.
        decomp_legs: number of these digits; values below decomp_base ** decomp_legs can be checked.
        input_visibility: of the model's inputs.
        output_visibility: of the model's outputs.
        param_visibility: of the constants; "fixed" ones are part of the verification key.
        ignore_range_check_inputs_outputs: leave out the range checks of inputs and outputs. Sound
            where the verifier sees them and checks them outside of the circuit.
        rebase_frac_zero_constants: constants that are integers get the label 0.
        bounded_log_lookup: logarithms by a piecewise linear form.
        disable_freivalds: matrix products as dot products, each written out.
        epsilon: stands for a zero that is divided by.
        check_mode: "safe" compares ranges while the witness is made.
        variables: sizes of the named dynamic axes.
    """

    input_scale: int = 7
    param_scale: int = 7
    scale_rebase_multiplier: int = 1
    rebase_scale: int | None = None
    lookup_range: tuple[int, int] = (-32768, 32768)
    logrows: int = 17
    num_inner_cols: int = 2
    decomp_base: int = 16384
    decomp_legs: int = 2
    input_visibility: Visibility = "public"
    output_visibility: Visibility = "public"
    param_visibility: Visibility = "fixed"
    ignore_range_check_inputs_outputs: bool = False
    rebase_frac_zero_constants: bool = False
    bounded_log_lookup: bool = False
    disable_freivalds: bool = False
    epsilon: float | None = None
    check_mode: Literal["safe", "unsafe"] = "unsafe"
    variables: tuple[tuple[str, int], ...] = (("batch_size", 1),)

    @property
    def threshold(self) -> int:
        """The label in bits above which EZKL divides the output of an operation."""
        scale = self.rebase_scale
        if scale is None:
            scale = max(self.input_scale, self.param_scale)
        return scale * self.scale_rebase_multiplier

    @property
    def checkable(self) -> int:
        """The first magnitude that a range check cannot hold."""
        limit: int = self.decomp_base**self.decomp_legs
        return limit

    def to_ezkl(self) -> ezkl.PyRunArgs:
        """The same settings as an object of EZKL.

        Raises:
            ValueError: where `rebase_scale` is set, which EZKL's class cannot say.
        """
        import ezkl

        if self.rebase_scale is not None:
            raise ValueError("ezkl.PyRunArgs has no rebase_scale: edit the settings file instead")
        native = ezkl.PyRunArgs()
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name in _UNSETTABLE or value is None:
                continue
            if field.name == "variables":
                value = list(value)
            setattr(native, field.name, value)
        return native

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> RunArguments:
        """Read the settings file of a circuit, or the `run_args` in it.

        Args:
            settings: the parsed JSON.
        """
        native = settings.get("run_args", settings)
        known = {field.name for field in dataclasses.fields(cls)}
        values = {name: _plain(name, value) for name, value in native.items() if name in known}
        return cls(**values)


def _plain(name: str, value: Any) -> Any:
    if name == "variables":
        return tuple((str(variable), int(size)) for variable, size in value)
    if name == "lookup_range":
        return (int(value[0]), int(value[1]))
    if name.endswith("visibility"):
        # `Hashed` and the like carry options: {"Hashed": {...}}.
        name = (value if isinstance(value, str) else next(iter(value))).lower()
        return "polycommit" if name == "kzgcommit" else name
    if name == "check_mode":
        return value.lower()
    return value
