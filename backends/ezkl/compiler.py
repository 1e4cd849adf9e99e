"""From a circuit in real numbers to integers: the cheapest schedule within an error."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from odp.approximations.errors import OdpError
from odp.backends.ezkl.choices import Choice, columns_choice, digits_choice
from odp.backends.ezkl.circuit import Circuit
from odp.backends.ezkl.columns import cheapest, column_options
from odp.backends.ezkl.cost import CostReport, RunArguments, predict
from odp.backends.ezkl.integer_program import IntegerProgram
from odp.backends.ezkl.magnitudes import magnitudes
from odp.backends.ezkl.memory import machine_memory
from odp.backends.ezkl.noise import noise_gains
from odp.backends.ezkl.schedule import (
    CLAIMED,
    COMPARED,
    QUOTIENT_BITS,
    Requirements,
    can_rescale,
    solve,
)

__all__ = ["Compiled", "compile_circuit", "relative_error"]

Array = NDArray[Any]
Progress = Callable[[int, int], None]

_DIGITS = tuple((14, legs) for legs in range(2, 7))
"""Bits and number of the digits of a range check.  Digits of 14 bits need a table of 2^14 rows,
which every circuit has; longer ones would need a larger circuit."""

# Rows of one rescaled element in two columns by number of digits, measured on EZKL 23.0.5: digits
# are laid out in pairs.
_RESCALE_ROWS = {1: 20.5, 2: 23.5, 3: 29.5, 4: 32.5, 5: 38.5, 6: 41.5, 7: 47.5, 8: 50.5}
# Tensors this much smaller than the largest one may have more bits: they cost nothing, and steps of
# an iteration for a root that round coarsely do not converge.
_SMALL = 0.02
# How many more is tried: attention takes 73,664 rows with 2 and 110,112 with 6, the feed-forward
# block of 64 channels 10,326 with 6 and 20,352 or more with less.
_SPARE_BITS = (6, 2)
_FINALISTS = 2
_ROUNDS = 5
# Of the integer program, for a first look at each number of digits and for the rest.
_SECONDS = (2.0, 6.0)
# How much longer the first look is where it found nothing: on a busy machine two seconds passed
# without any schedule of a layer that has some.
_PATIENCE = 5
# How close to the budget is close enough.
_ENOUGH = 0.75
# Inputs that every schedule is measured on; the one that is taken is measured on all.
_MEASURED = 4
_CORRECTIONS = 3


@dataclass(frozen=True)
class Compiled:
    """A circuit in integers, and what it costs and loses.

    Attributes:
        program: the circuit with its scales.
        arguments: EZKL's settings for it.
        cost: predicted.
        error: largest relative l2 error of the outputs over the calibration inputs.
        limits: for each node log2 of the largest value that it may have.
        choices: what was chosen for the circuit as a whole, and instead of what.
    """

    program: IntegerProgram
    arguments: RunArguments
    cost: CostReport
    error: float
    limits: tuple[float, ...]
    choices: tuple[Choice, ...] = ()


def compile_circuit(
    circuit: Circuit,
    inputs: Sequence[Mapping[str, Array]],
    references: Sequence[Mapping[str, Array]],
    *,
    error: float,
    margin: float = 0.25,
    arguments: RunArguments | None = None,
    progress: Progress = lambda done, total: None,
) -> Compiled:
    """Find scales, rescales and settings with the fewest rows.

    Args:
        circuit: without divisions.
        inputs: calibration inputs by name.
        references: what the original model makes of each of them, by name of the output.
        error: largest relative l2 error of the outputs, approximations and rounding together.
        margin: by how much larger than on the calibration inputs any value may be.
        arguments: settings to keep: visibilities, columns, range checks of inputs and outputs.
        progress: called with the number of schedules that were tried, and of all.

    Raises:
        OdpError: no schedule keeps the error; says what stands in the way.
    """
    study = _Study(circuit, inputs, references, error, margin, arguments or RunArguments())
    total = len(_DIGITS) + _FINALISTS
    first: list[tuple[tuple[float, ...], tuple[int, int]]] = []
    rows: dict[int, int | None] = {}
    for seconds in (_SECONDS[0], _PATIENCE * _SECONDS[0]):
        for done, digits in enumerate(_DIGITS):
            progress(done, total)
            found = study.tried(digits, _SPARE_BITS[0], 1.0, seconds)
            rows[digits[1]] = None if found is None else found.cost.rows
            if found is not None:
                first.append((_price(found), digits))
        if first:
            break
    if not first:
        raise OdpError(study.obstacle())
    finalists = [digits for _, digits in sorted(first)[:_FINALISTS]]
    runs = [(digits, _SPARE_BITS[0]) for digits in finalists] + [
        (finalists[0], spare) for spare in _SPARE_BITS[1:]
    ]
    total = len(_DIGITS) + len(runs)
    best: Compiled | None = None
    chosen = runs[0]
    for done, (digits, spare) in enumerate(runs):
        progress(len(_DIGITS) + done, total)
        found = study.refined(digits, spare, best)
        if found is not None and (best is None or _price(found) < _price(best)):
            best, chosen = found, (digits, spare)
    if best is None:
        raise OdpError(
            f"no schedule has a relative error of {error:g} or less: the expressions alone have "
            f"{study.approximation:.2g}; allow a larger error, or smaller errors at the sites"
        )
    best = study.corrected(best, *chosen)
    progress(total, total)
    options = column_options(best.program.to_onnx(), best.arguments)
    cost = cheapest(options, machine_memory())
    choices = (digits_choice(best.arguments, rows), columns_choice(cost, options))
    return replace(best, arguments=cost.arguments, cost=cost, choices=choices)


def relative_error(found: Mapping[str, Array], wanted: Mapping[str, Array]) -> float:
    """The relative l2 error of all outputs together; infinite if there is anything but numbers."""
    difference = size = 0.0
    for name, array in wanted.items():
        other = np.asarray(found[name], np.float64).reshape(array.shape)
        difference += float(np.sum(np.square(other - array)))
        size += float(np.sum(np.square(np.asarray(array, np.float64))))
    error = math.sqrt(difference / max(size, 1e-300))
    return error if math.isfinite(error) else math.inf


def _price(compiled: Compiled) -> tuple[float, ...]:
    return compiled.cost.rows, compiled.arguments.decomp_legs


class _Study:
    """One circuit: what is known about it, and schedules by wish."""

    def __init__(
        self,
        circuit: Circuit,
        inputs: Sequence[Mapping[str, Array]],
        references: Sequence[Mapping[str, Array]],
        error: float,
        margin: float,
        arguments: RunArguments,
    ) -> None:
        self.circuit, self.error = circuit, error
        # Of the error, by digits: where an earlier search of theirs ended.
        self.factors: dict[tuple[int, int], float] = {}
        self.inputs, self.references = inputs, references
        self.measured = list(range(min(len(inputs), _MEASURED)))
        self.arguments = replace(arguments, input_scale=0, param_scale=0)
        samples = [circuit.evaluate(one) for one in inputs]
        self.approximation = max(
            relative_error(
                {name: values[number] for name, number in circuit.outputs.items()}, reference
            )
            for values, reference in zip(samples, references, strict=True)
        )
        if self.approximation >= error:
            raise OdpError(
                f"the expressions alone have a relative error of {self.approximation:.2g}, more "
                f"than the {error:g} that are allowed; ask for smaller errors at the sites"
            )
        self.margin = margin
        self.magnitudes = magnitudes(circuit, samples, margin)
        self.gains = noise_gains(circuit, samples[:2])
        largest = max(node.elements for node in circuit.nodes if node.value is None)
        # A root or a reciprocal rounds once; it and its operand share few bits, and spare none.
        sparing = {
            i
            for number, node in enumerate(circuit.nodes)
            if node.kind in CLAIMED
            for i in (number, *node.inputs)
        }
        self.large = [
            node.elements > _SMALL * largest or node.kind == "input" or number in sparing
            for number, node in enumerate(circuit.nodes)
        ]

    def precisions(self, spare: int, factor: float) -> list[float]:
        """The scale that each tensor needs if rounding may use `factor` of what is left.

        Every rounding gets the same share of the squared error, and small tensors `spare` bits.
        """
        left = math.sqrt(self.error**2 - self.approximation**2)
        rounded = [
            node.value is not None
            or node.kind in ("input", *CLAIMED)
            or can_rescale(self.circuit, node)
            for node in self.circuit.nodes
        ]
        count = sum(a and b for a, b in zip(rounded, self.large, strict=True))
        share = factor * left * math.sqrt(12.0 / max(count, 1))
        return [
            math.log2(max(gain, 1e-12) / share) + (0 if large else spare)
            for gain, large in zip(self.gains, self.large, strict=True)
        ]

    def tried(
        self, digits: tuple[int, int], spare: int, factor: float, seconds: float
    ) -> Compiled | None:
        """The best schedule with some digits; its error is not yet within the budget."""
        bits, legs = digits
        wanted = Requirements(
            self.magnitudes,
            self.precisions(spare, factor),
            bits * legs,
            _RESCALE_ROWS[legs],
            not self.arguments.ignore_range_check_inputs_outputs,
        )
        schedule = solve(self.circuit, wanted, seconds)
        if schedule is None:
            return None
        program = IntegerProgram(self.circuit, schedule, bits * legs)
        arguments = replace(self.arguments, decomp_base=2**bits, decomp_legs=legs)
        cost = predict(program.to_onnx(), arguments)
        limits = tuple(self.magnitudes)
        return Compiled(program, arguments, cost, math.inf, limits)

    def refined(
        self, digits: tuple[int, int], spare: int, known: Compiled | None = None
    ) -> Compiled | None:
        """The cheapest schedule found whose measured error is within the budget.

        Args:
            digits: bits and number.
            spare: bits that small tensors have more than they need.
            known: the best one so far; what cannot be cheaper is given up.
        """
        factor, best, before = self.factors.get(digits, 1.0), None, 0.0
        for _ in range(_ROUNDS):
            found = self.tried(digits, spare, factor, _SECONDS[1])
            if found is None:
                break
            errors, _ = self._simulated(found.program, self.measured)
            error = max(errors)
            if error <= self.error:
                found = replace(found, error=error)
                if best is None or _price(found) < _price(best):
                    best, self.factors[digits] = found, factor
                if self._rounding(error) >= _ENOUGH:
                    break
            elif known is not None and _price(found) >= _price(known):
                # Finer scales only take more rows.
                break
            step = min(max(1.0 / max(self._rounding(error), 1e-9) * 0.95, 1 / 64), 4.0)
            # Scales are whole bits: a small step can leave all of them where they were.
            factor *= min(step, 0.5) if error == before > self.error else step
            before = error
        return best

    def corrected(self, found: Compiled, digits: tuple[int, int], spare: int) -> Compiled:
        """A schedule within the budget on every input, with the ranges of all of them.

        Args:
            found: within it on those that were measured.
            digits: its own.
            spare: its own.

        Raises:
            OdpError: there is none; says on which input.
        """
        for corrections in range(_CORRECTIONS + 1):
            errors, largest = self._simulated(found.program, range(len(self.inputs)))
            worst = sorted(range(len(errors)), key=lambda number: -errors[number])
            if errors[worst[0]] <= self.error:
                limits = self._limits(found.program, largest)
                return replace(found, error=errors[worst[0]], limits=limits)
            if corrections == _CORRECTIONS:
                break
            self.measured = sorted({*self.measured, *worst[:_MEASURED]})
            hard = noise_gains(self.circuit, [self.circuit.evaluate(self.inputs[worst[0]])])
            self.gains = [max(pair) for pair in zip(self.gains, hard, strict=True)]
            self.factors.clear()
            better = self.refined(digits, spare)
            if better is None:
                break
            found = better
        raise OdpError(
            f"no schedule has a relative error of {self.error:g} or less on all "
            f"{len(self.inputs)} inputs: number {worst[0]} has {errors[worst[0]]:.2g}; allow a "
            "larger error, or smaller errors at the sites"
        )

    def _rounding(self, error: float) -> float:
        """What rounding adds to an error, as a share of what it may add."""
        left = math.sqrt(self.error**2 - self.approximation**2)
        return math.sqrt(max(error**2 - self.approximation**2, 0.0)) / left

    def _simulated(
        self, program: IntegerProgram, numbers: Sequence[int]
    ) -> tuple[list[float], list[int]]:
        """The error on each of some inputs, and the largest integer of each node.

        Errors are infinite where an integer does not fit.
        """
        errors, most = [], [0] * len(self.circuit.nodes)
        for number in numbers:
            values, overflows = program.simulate(program.quantise(self.inputs[number]))
            if overflows:
                errors.append(math.inf)
                continue
            most = [
                max(m, int(np.abs(v).max(initial=0))) for m, v in zip(most, values, strict=True)
            ]
            errors.append(relative_error(program.outputs(values), self.references[number]))
        return errors, most

    def _limits(self, program: IntegerProgram, largest: Sequence[int]) -> tuple[float, ...]:
        """What each node may reach: what calibration saw, or more where rounding is coarse.

        Small tensors with few bits are off by more than a margin of their range, and do no harm.
        """
        schedule, found = program.schedule, []
        compared = {i for node in self.circuit.nodes if node.kind in COMPARED for i in node.inputs}
        for number, limit in enumerate(self.magnitudes):
            if not largest[number] or number in compared:
                found.append(limit)
                continue
            bits = 125
            if schedule.rescaled(number):
                bits = min(program.digits - 1, QUOTIENT_BITS)
            scale = schedule.scales[number]
            seen = math.log2(largest[number]) - scale + math.log2(1.0 + self.margin)
            found.append(max(limit, min(seen, bits - scale)))
        return tuple(found)

    def obstacle(self) -> str:
        """Why there is no schedule: the tensor that needs the most bits."""
        needed = [
            (precision + magnitude, node)
            for precision, magnitude, node in zip(
                self.precisions(_SPARE_BITS[0], 1.0),
                self.magnitudes,
                self.circuit.nodes,
                strict=True,
            )
            if node.value is None
        ]
        bits, node = max(needed, key=lambda pair: pair[0])
        return (
            f"no schedule fits: node {node.where} needs {bits:.0f} bits for an error of "
            f"{self.error:g}, and integers have 125; allow a larger error"
        )
