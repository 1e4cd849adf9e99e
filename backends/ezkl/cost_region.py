"""How EZKL lays numbers out: a cursor over rows of `num_inner_cols` cells, and what it has to fill.

A port of EZKL's layouts that counts instead of writing. `gen_settings` runs the layouts on values
that are not known yet ("dummy"), where no value counts as assigned before; so does this, and the
two agree to the cell. The circuit that is proved can need fewer rows than that: there a value that
already lies in a column is not written again.

Counts of elements are n; "cells" are elements of one column group, and a row holds
`num_inner_cols` of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from odp.backends.ezkl.run_arguments import RunArguments

__all__ = ["Region", "Table"]

# What one call of a layout adds up to; a loop over equal slices multiplies it.
_COUNTERS = ("coordinate", "shuffle_cells", "shuffles", "einsum_cells", "einsum_capacity")


@dataclass(frozen=True, order=True)
class Table:
    """The values of a function on the lookup range.

    Attributes:
        name: as in EZKL's settings: "Sigmoid", "Exp".
        parameters: what makes two tables of one function differ: the scale, the base.
    """

    name: str
    parameters: tuple[tuple[str, float], ...] = ()


@dataclass
class Region:
    """The cursor and the sets that EZKL's `RegionCtx` keeps.

    Attributes:
        columns: cells in a row.
        base: radix of range checks.
        legs: digits of range checks.
        coordinate: cells used so far; rows are this by `columns`, rounded down, as EZKL has it.
        constants: every constant that is written, as the float that stands for it exactly.
        lookups: tables of non-linear functions, as in the settings.
        range_checks: intervals that values are checked against.
        shuffles: permutation arguments (sorting).
        shuffle_cells: cells in the columns of these.
        einsum_cells: cells in the columns of Freivalds' algorithm.
        einsum_capacity: cells that EZKL reserves there: it counts every einsum, also those of range
            checks, which never use them.
        einsum_axes: largest number of axes, of sizes above 1, of any einsum's result.
        gates: accumulating gates that are used.
        shape: of the tensor that is being laid out.
    """

    columns: int
    base: int
    legs: int
    epsilon: float
    freivalds: bool
    coordinate: int = 0
    constants: set[float] = field(default_factory=set)
    lookups: set[Table] = field(default_factory=set)
    range_checks: set[tuple[int, int]] = field(default_factory=set)
    shuffles: int = 0
    shuffle_cells: int = 0
    einsum_cells: int = 0
    einsum_capacity: int = 0
    einsum_axes: int = 0
    gates: set[str] = field(default_factory=set)
    shape: tuple[int, ...] = ()

    @classmethod
    def of(cls, arguments: RunArguments) -> Region:
        """An empty region."""
        epsilon = arguments.epsilon
        return cls(
            columns=arguments.num_inner_cols,
            base=arguments.decomp_base,
            legs=arguments.decomp_legs,
            epsilon=float(np.finfo(np.float64).eps) if epsilon is None else epsilon,
            freivalds=not arguments.disable_freivalds,
        )

    @property
    def rows(self) -> int:
        """Full rows up to the cursor."""
        return self.coordinate // self.columns

    def advance(self, n: int) -> None:
        """Write n cells."""
        self.coordinate += n

    def flush(self) -> None:
        """Go to the start of a row."""
        self.coordinate += -self.coordinate % self.columns

    def write_constants(self, values: Iterable[float] | npt.NDArray[np.float64]) -> None:
        """Note constants: each value lies in the fixed columns once."""
        self.constants.update(values.tolist() if isinstance(values, np.ndarray) else values)

    def repeat(self, count: int, body: Callable[[], None]) -> None:
        """Lay the same thing out `count` times.

        What a pass costs depends on where in a row it starts, so the cost is periodic: one period
        is counted, the rest multiplied. A softmax over 10,000 rows takes as long as one over 2.
        """
        # Nothing starts a row of the einsum columns but the einsum itself, whose lengths are
        # all alike here; its phase is part of the state for safety.
        seen: dict[tuple[int, int], tuple[int, tuple[int, ...]]] = {}
        done = 0
        while done < count:
            state = (self.coordinate % self.columns, self.einsum_cells % self.columns)
            now = tuple(getattr(self, name) for name in _COUNTERS)
            if state in seen:
                start, before = seen[state]
                period = done - start
                times = (count - done) // period
                for name, old, new in zip(_COUNTERS, before, now, strict=True):
                    setattr(self, name, new + times * (new - old))
                done += times * period
                for _ in range(count - done):
                    body()
                return
            seen[state] = (done, now)
            body()
            done += 1

    # Base gates: one cell an element.

    def pairwise(self, n: int) -> None:
        """Add, subtract or multiply elements."""
        self.advance(n)

    def enforce_equality(self, n: int) -> None:
        """Constrain elements to be equal to others."""
        self.advance(n)

    def accumulate(self, n: int, gate: str = "Dot") -> None:
        """Run a "Dot", "Sum" or "CumProd" over n elements; it fills rows of its own."""
        self.flush()
        padded = math.ceil(n / self.columns) * self.columns
        if padded != n:
            self.constants.add(1.0 if gate == "CumProd" else 0.0)
        self.gates.add(f"{gate}Init")
        if n > self.columns:
            self.gates.add(gate)
        self.advance(padded)

    def sum(self, n: int) -> None:
        """Sum n elements."""
        if n > 1:
            self.accumulate(n, "Sum")

    # Lookup arguments.

    def range_check(self, n: int, low: int, high: int) -> None:
        """Look elements up in an interval."""
        self.range_checks.add((low, high))
        self.advance(n)

    def lookup(self, n: int, name: str, **parameters: float) -> None:
        """Look elements up in the table of a function."""
        self.lookups.add(Table(name, tuple(sorted(parameters.items()))))
        self.advance(n)

    # Signs and digits.

    def decompose(self, n: int, zero_sign_matters: bool = False, base: int | None = None) -> None:
        """Write a sign and digits of every element and check them: what a range check is.

        Args:
            n: elements.
            zero_sign_matters: force the sign of 0 to be 0, for 6 cells more.
            base: radix in place of the region's.
        """
        base = self.base if base is None else base
        legs = self.legs
        self.write_constants(float(base) ** power for power in range(legs))
        self.advance(n * (legs + 1))
        self.range_check(n, -1, 1)
        if zero_sign_matters:
            self.equals_zero(n)
            self.pairwise(n)
            self.constants.add(0.0)
            self.enforce_equality(n)
        self.range_check(n * legs, 0, base - 1)
        self.recombine(n)
        self.enforce_equality(n)

    def recombine(self, n: int) -> None:
        """Multiply the digits of n elements by powers of the base, sum, and apply the sign."""
        # Slices of a tensor come flattened; axes of size 1 do not count.
        shape = self.shape if math.prod(self.shape) == n else (n,)
        sizes = [size for size in shape if size > 1]
        self.reserve([*sizes, self.legs] if self.legs > 1 else sizes, len(sizes))
        self.flush()
        self.repeat(n, lambda: self.accumulate(self.legs))
        self.pairwise(n)

    def reserve(self, sizes: Sequence[int], kept: int) -> None:
        """Reserve cells for an einsum of two operands of one shape, of which it keeps some axes.

        EZKL asks every einsum how long its random combinations would be, as if it were checked by
        Freivalds' algorithm: the result combined axis by axis; the operands multiplied, combined
        axis by axis, and the rest summed.
        """
        cells = sum(math.prod(sizes[:axis]) for axis in range(1, kept + 1))
        volume = math.prod(sizes)
        if kept:
            cells += volume
        for axis in range(len(sizes)):
            cells += math.prod(sizes[axis:])
        self.einsum_capacity += cells
        self.einsum_axes = max(self.einsum_axes, kept)

    def sign(self, n: int, zero_sign_matters: bool = True) -> None:
        """Signs of elements, from their digits."""
        self.decompose(n, zero_sign_matters)

    def abs(self, n: int) -> None:
        """Magnitudes: element times sign."""
        self.sign(n, zero_sign_matters=False)
        self.pairwise(n)

    # Booleans.

    def boolean(self, n: int) -> None:
        """Copy elements and check that they are 0 or 1."""
        self.advance(n)
        self.range_check(n, 0, 1)

    def select(self, mask: int, n: int) -> None:
        """Choose between two tensors: mask * a + (1 - mask) * b.

        Args:
            mask: elements of the mask.
            n: elements of what is chosen.
        """
        self.constants.add(1.0)
        self.boolean(mask)
        self.pairwise(mask)
        self.pairwise(n)
        self.pairwise(n)
        self.pairwise(n)

    def invert(self, n: int) -> None:
        """Negate booleans; EZKL selects between 0 and 1."""
        self.write_constants((0.0, 1.0))
        self.select(n, n)

    def both(self, n: int) -> None:
        """Take the conjunction of booleans."""
        self.boolean(n)
        self.boolean(n)
        self.pairwise(n)

    def either(self, n: int) -> None:
        """Take the disjunction of booleans: a selection with its own operand as the mask."""
        self.boolean(n)
        self.select(n, n)

    # Comparisons.

    def equals_zero(self, n: int) -> None:
        """Test for zero with an inverse that the prover supplies."""
        self.write_constants((0.0, 1.0))
        self.pairwise(3 * n)
        self.enforce_equality(n)

    def equals(self, n: int) -> None:
        """Test for equality."""
        self.pairwise(n)
        self.equals_zero(n)

    def greater(self, n: int) -> None:
        """Compare by the sign of a difference."""
        self.constants.add(1.0)
        self.pairwise(n)
        self.sign(n)
        self.equals(n)

    def greater_equal(self, n: int, left: int | None = None) -> None:
        """Compare by the sign of a difference plus 1.

        Args:
            n: elements of the result.
            left: elements of the side that 1 is added to, before it is broadcast.
        """
        self.constants.add(1.0)
        self.pairwise(n if left is None else left)
        self.greater(n)

    def distance(self, n: int) -> None:
        """Magnitude of a difference."""
        self.pairwise(n)
        self.abs(n)

    def minimum_at(self, n: int, function: Callable[[], None]) -> None:
        """Show that a convex function is smallest at n points: f(x) <= f(x+1), f(x) < f(x-1).

        Args:
            n: elements.
            function: lays f out.
        """
        self.constants.add(1.0)
        function()
        self.pairwise(n)
        function()
        self.pairwise(n)
        function()
        self.greater_equal(n)
        self.greater(n)
        self.both(n)
