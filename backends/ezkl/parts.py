"""All parts of a split circuit: proven here or on other machines, and verified with their links."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from odp.approximations.errors import OdpError
from odp.backends.ezkl.artefacts import CircuitFolder
from odp.backends.ezkl.linking import Link, check_links, read_parts
from odp.backends.ezkl.memory import machine_memory
from odp.backends.ezkl.prover import ProofRun, prove, verify
from odp.backends.ezkl.reference_string import fitting, stored_srs, unsafe_srs

__all__ = ["PartsProof", "PartsVerdict", "prove_parts", "verify_parts", "workers"]

# Seconds that a scheduler has to answer.
_PATIENCE = 20


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
    jobs: int = 1,
    told: Callable[[str], None] = lambda message: None,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> PartsProof:
    """Prove every part of a split circuit through joblib, and check the links between them.

    Args:
        folder: that `split` has written.
        srs: a reference string that is long enough for all parts; test ones are made if None.
        srs_folder: where test strings are kept.
        force: go on where memory is predicted not to suffice.
        jobs: parts at a time, 1 or more; on Dask, its workers decide.
        told: called with what a person must know.
        progress: called as `progress("parts", parts done, parts)`.

    Raises:
        OdpError: as for `prove`; begins with the name of the part.
    """
    from joblib import Parallel, delayed

    parts, links = read_parts(folder)
    circuits = [CircuitFolder(part.folder) for part in parts]
    try:
        parallel = Parallel(n_jobs=jobs, return_as="generator_unordered")
    except ValueError as error:
        raise OdpError(f"joblib: {error}") from None
    if not force:
        _check_memory(circuits, jobs)
    # Made here: two processes would make two different ones.
    strings = [_string(circuit, srs, srs_folder, told) for circuit in circuits]
    progress("parts", 0, len(parts))
    found: dict[int, ProofRun] = {}
    try:
        for number, run in parallel(
            delayed(_prove_part)(number, circuit.path.absolute(), string, srs_folder, force)
            for number, (circuit, string) in enumerate(zip(circuits, strings, strict=True))
        ):
            run.unsafe_srs = srs is None
            found[number] = run
            progress("parts", len(found), len(parts))
    except BrokenExecutor:
        raise OdpError(
            f"a worker of joblib was killed after {len(found)} of {len(parts)} parts, most likely "
            "for want of memory: use fewer --jobs; parts that are done keep their keys"
        ) from None
    runs = {part.folder.name: found[number] for number, part in enumerate(parts)}
    verified = {name: run.verified for name, run in runs.items()}
    return PartsProof(
        runs, PartsVerdict(verified, len(links), check_links(parts, links, strings[0]))
    )


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
    verified, strings = {}, []
    for number, part in enumerate(parts):
        progress("verify", number, len(parts))
        with _named(part.folder):
            circuit = CircuitFolder(part.folder)
            string = srs or stored_srs(circuit.logrows, srs_folder)
            strings.append(string)
            verified[part.folder.name] = verify(circuit, part.folder / "proof.json", srs=string)
    progress("verify", len(parts), len(parts))
    return PartsVerdict(verified, len(links), check_links(parts, links, strings[0]))


@contextlib.contextmanager
def workers(backend: str | None, scheduler: str | None) -> Iterator[None]:
    """Where joblib works while this lasts.

    Args:
        backend: name of a backend of joblib; None leaves what joblib.parallel_config says.
        scheduler: address of a Dask scheduler, `tcp://host:8786`.

    Raises:
        OdpError: there is no such backend or scheduler, or no Dask.
    """
    import joblib

    if scheduler is None:
        if backend == "dask":
            raise OdpError("the backend dask needs --scheduler ADDRESS, as of dask scheduler")
        if backend is None:
            yield
            return
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(joblib.parallel_config(backend=backend))
            except (ValueError, ImportError) as error:
                message = str(error).partition("\n")[0]
                raise OdpError(f"joblib has no backend '{backend}': {message}") from None
            yield
        return
    if backend not in (None, "dask"):
        raise OdpError(f"--scheduler is of Dask: leave out --backend {backend}")
    try:
        from distributed import Client
    except ImportError:
        raise OdpError(
            "--scheduler needs the package distributed here and on the workers: pip install "
            "distributed"
        ) from None
    # Its annotations are of a part of it only.
    connect: Any = Client
    try:
        client = connect(scheduler, timeout=_PATIENCE, set_as_default=False)
    except (OSError, ValueError) as error:
        message = str(error).partition("\n")[0]
        raise OdpError(f"no Dask scheduler answers at '{scheduler}': {message}") from None
    with client, joblib.parallel_config(backend="dask", client=client):
        yield


def _prove_part(
    number: int, folder: Path, srs: Path, srs_folder: Path, force: bool
) -> tuple[int, ProofRun]:
    """Prove one part, in whatever process on whatever machine."""
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
    from joblib.parallel import get_active_backend

    backend: Any = get_active_backend()[0]
    # Machines of a cluster look at their own memory, part by part.
    if type(backend).__name__ == "DaskDistributedBackend" or jobs == 1:
        return
    at_a_time = min(jobs, len(circuits))
    memory = sorted((int(c.manifest["predicted"]["peak_memory"]) for c in circuits), reverse=True)
    needed, there = sum(memory[:at_a_time]), machine_memory()
    if needed > there:
        raise OdpError(
            f"{at_a_time} parts at a time are predicted to need {needed / 1e9:.1f} GB, and this "
            f"machine has {there / 1e9:.1f}; use fewer --jobs, or try with --force"
        )
