"""All parts of a split circuit: proven here or on other machines, and verified with their links."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from odp.approximations.errors import OdpError
from odp.backends.ezkl.artefacts import CircuitFolder
from odp.backends.ezkl.linking import Link, Part, check_links, read_parts
from odp.backends.ezkl.memory import machine_memory
from odp.backends.ezkl.part_workers import Workers
from odp.backends.ezkl.prover import ProofRun, prove, verify
from odp.backends.ezkl.reference_string import fitting, stored_srs, unsafe_srs

__all__ = ["PartsProof", "PartsVerdict", "prove_parts", "verify_parts"]

_ALONE = Workers()


@dataclass(frozen=True)
class PartsVerdict:
    """Whether the proofs of all parts are good, and belong together.

    Attributes:
        parts: whether the proof of each verifies, by the name of its folder.
        links: how many there are.
        broken: those whose public values differ on their two sides.
    """

    parts: dict[str, bool]
    links: int
    broken: list[Link]

    @property
    def verified(self) -> bool:
        """Whether all is well."""
        return all(self.parts.values()) and not self.broken


@dataclass(frozen=True)
class PartsProof:
    """What proving all parts took, and whether it went well.

    Attributes:
        runs: by the name of the folder of the part.
        verdict: of all of them.
    """

    runs: dict[str, ProofRun]
    verdict: PartsVerdict


def prove_parts(
    folder: Path,
    *,
    srs: Path | None = None,
    srs_folder: Path,
    force: bool = False,
    workers: Workers = _ALONE,
    told: Callable[[str], None] = lambda message: None,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> PartsProof:
    """Prove every part of a split circuit, and check the links between them.

    Args:
        folder: that `split` has written.
        srs: a reference string that is long enough for all parts; test ones are made if None.
        srs_folder: where test strings are kept.
        force: go on where memory is predicted not to suffice.
        workers: that prove them; by default one after the other, or as joblib.parallel_config says.
        told: called with what a person must know.
        progress: called as `progress("parts", parts done, parts)`.

    Raises:
        OdpError: as for `prove`; begins with the name of the part.
    """
    parts, links = read_parts(folder)
    circuits = [CircuitFolder(part.folder) for part in parts]
    if not force and workers.on_this_machine:
        _check_memory(circuits, workers.jobs)
    # Made here: two processes would make two different ones.
    strings = [_string(circuit, srs, srs_folder, told) for circuit in circuits]
    progress("parts", 0, len(parts))
    found: dict[int, ProofRun] = {}
    try:
        for number, run in workers.run(
            _prove_part,
            [
                (number, circuit.path.absolute(), string, srs_folder, force)
                for number, (circuit, string) in enumerate(zip(circuits, strings, strict=True))
            ],
        ):
            run.unsafe_srs = srs is None
            found[number] = run
            progress("parts", len(found), len(parts))
    except OdpError as error:
        done = f"{len(found)} of {len(parts)} parts are done and keep their keys"
        raise OdpError(f"{error}; {done}" if found else str(error)) from None
    runs = {part.folder.name: found[number] for number, part in enumerate(parts)}
    verified = {name: run.verified for name, run in runs.items()}
    return PartsProof(runs, _verdict(parts, links, verified, strings[0]))


def verify_parts(
    folder: Path,
    *,
    srs: Path | None = None,
    srs_folder: Path,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> PartsVerdict:
    """Verify the proofs of all parts of a split circuit, and the links between them.

    Args:
        folder: that `split` has written, with proofs in the folders of the parts.
        srs: the reference string of the keys; the test ones if None.
        srs_folder: where test strings are kept.
        progress: called as `progress("verify", parts done, parts)`.

    Raises:
        OdpError: as for `verify`; begins with the name of the part.
    """
    parts, links = read_parts(folder)
    verified: dict[str, bool] = {}
    string = srs
    for number, part in enumerate(parts):
        progress("verify", number, len(parts))
        with _named(part.folder):
            circuit = CircuitFolder(part.folder)
            string = srs or stored_srs(circuit.logrows, srs_folder)
            verified[part.folder.name] = verify(circuit, part.folder / "proof.json", srs=string)
    progress("verify", len(parts), len(parts))
    return _verdict(parts, links, verified, string)


def _verdict(
    parts: Sequence[Part], links: Sequence[Link], verified: Mapping[str, bool], srs: Path | None
) -> PartsVerdict:
    """What a proof that does not verify shows of its tensors is worth nothing."""
    broken = check_links(parts, links, srs) if all(verified.values()) else []
    return PartsVerdict(dict(verified), len(links), broken)


def _prove_part(
    number: int, folder: Path, srs: Path, srs_folder: Path, force: bool
) -> tuple[int, ProofRun]:
    """Prove one part, in whatever process on whatever machine."""
    for path in (folder, srs):
        if not path.exists():
            raise OdpError(
                f"{folder.name}: the worker on '{platform.node()}' does not see '{path}': it has "
                "to be there under the same path, on a shared file system"
            )
    with _named(folder):
        return number, prove(CircuitFolder(folder), srs=srs, srs_folder=srs_folder, force=force)


@contextlib.contextmanager
def _named(folder: Path) -> Iterator[None]:
    """Errors say which part they are about."""
    try:
        yield
    except OdpError as error:
        raise OdpError(f"{folder.name}: {error}") from None


def _string(
    circuit: CircuitFolder, srs: Path | None, folder: Path, told: Callable[[str], None]
) -> Path:
    if srs is None:
        return unsafe_srs(circuit.logrows, folder, told).absolute()
    with _named(circuit.path):
        fitting(srs, circuit.logrows)
    return srs.absolute()


def _check_memory(circuits: list[CircuitFolder], jobs: int) -> None:
    """Refuse parts that are each small enough, but not at a time."""
    at_a_time = min(jobs, len(circuits))
    if at_a_time == 1:
        return
    memory = sorted((int(c.manifest["predicted"]["peak_memory"]) for c in circuits), reverse=True)
    needed, there = sum(memory[:at_a_time]), machine_memory()
    if needed > there:
        raise OdpError(
            f"{at_a_time} parts at a time are predicted to need {needed / 1e9:.1f} GB, and this "
            f"machine has {there / 1e9:.1f}; use fewer --jobs, or try with --force"
        )
