"""Keys are made once, for one circuit and one reference string, and never half."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from odp.approximations.errors import OdpError

pytest.importorskip("ezkl")

from odp.backends.ezkl.artefacts import CircuitFolder
from odp.backends.ezkl.folder_lock import locked
from odp.backends.ezkl.prover import ProofRun, prove, verify
from odp.backends.ezkl.proving import EzklError, run_ezkl
from odp.backends.ezkl.reference_string import fitting, read_reference_string, unsafe_srs

from .tiny_circuit import write_circuit

FILES = {
    *("network.onnx", "settings.json", "input.json", "manifest.json", "keys.json"),
    *("network.ezkl", "pk.key", "vk.key", "witness.json", "proof.json"),
}


@pytest.fixture(scope="module")
def strings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where test strings are kept."""
    return tmp_path_factory.mktemp("strings")


def reused(run: ProofRun) -> set[str]:
    return {step.name for step in run.steps if step.reused}


@pytest.mark.parametrize("logrows", [2, 6, 9])
def test_what_is_in_a_reference_string(logrows: int, strings: Path) -> None:
    path = unsafe_srs(logrows, strings)
    assert read_reference_string(path).logrows == logrows
    assert fitting(path, logrows - 1) == fitting(path, logrows)
    with pytest.raises(OdpError, match=rf"for logrows {logrows}, and the circuit needs "):
        fitting(path, logrows + 1)


def test_a_longer_string_of_the_same_ceremony_has_the_same_trace(
    strings: Path, tmp_path: Path
) -> None:
    """Strings of one ceremony differ in length alone; those of two, in the secret."""
    path = unsafe_srs(6, strings)
    content, half = path.read_bytes(), 64 * 2**5
    shorter = tmp_path / "5.srs"
    points = content[4:][:half]
    shorter.write_bytes(
        (5).to_bytes(4, "little") + points + content[4 + 2 * half :][:half] + content[-256:]
    )
    assert read_reference_string(shorter).ceremony == read_reference_string(path).ceremony
    other = unsafe_srs(6, tmp_path / "others")
    assert read_reference_string(other).ceremony != read_reference_string(path).ceremony


def test_test_strings_are_made_once_and_anew_if_they_are_damaged(tmp_path: Path) -> None:
    told: list[str] = []
    path = unsafe_srs(6, tmp_path, told.append)
    made = path.read_bytes()
    assert unsafe_srs(6, tmp_path, told.append).read_bytes() == made
    path.write_bytes(made[:-1])
    (tmp_path / ".odp-1-test-6.srs").write_bytes(b"of a process that was killed")
    assert unsafe_srs(6, tmp_path, told.append).read_bytes() != made
    assert len(told) == 2 and "unsafe for real proofs" in told[0]
    assert [one.name for one in tmp_path.iterdir()] == ["test-6.srs"]


def test_a_longer_string_proves_and_verifies(strings: Path, tmp_path: Path) -> None:
    circuit = write_circuit(tmp_path / "circuit")
    longer = unsafe_srs(9, strings)
    run = prove(circuit, srs=longer, srs_folder=strings)
    assert run.verified and not run.unsafe_srs
    assert verify(circuit, circuit.path / "proof.json", srs=longer)


def test_keys_are_used_again_until_something_changes(strings: Path, tmp_path: Path) -> None:
    circuit = write_circuit(tmp_path / "circuit")
    path = circuit.path

    def run() -> ProofRun:
        found = prove(CircuitFolder(path), srs_folder=strings)
        assert found.verified and {one.name for one in path.iterdir()} == FILES
        return found

    def is_made_anew() -> bool:
        first, second = reused(run()), reused(run())
        assert second == {"compile_circuit", "setup"}
        return not first

    assert is_made_anew()
    # Other inputs need no other keys.
    other = write_circuit(tmp_path / "other", (1, 2, 3, 4))
    (path / "input.json").write_bytes((other.path / "input.json").read_bytes())
    assert not is_made_anew()

    for name in ("pk.key", "vk.key", "network.ezkl"):
        whole = (path / name).read_bytes()
        (path / name).write_bytes(whole[: len(whole) // 2])
        assert is_made_anew(), f"{name} was cut"
        changed = bytearray((path / name).read_bytes())
        changed[len(changed) // 2] ^= 1
        (path / name).write_bytes(changed)
        assert is_made_anew(), f"{name} was changed"
        (path / name).unlink()
        assert is_made_anew(), f"{name} was removed"

    another = write_circuit(tmp_path / "another", seed=5)
    (path / "network.onnx").write_bytes((another.path / "network.onnx").read_bytes())
    assert is_made_anew(), "the network changed"
    settings = json.loads((path / "settings.json").read_text())
    settings["run_args"]["logrows"] = 7
    (path / "settings.json").write_text(json.dumps(settings))
    assert is_made_anew(), "settings changed"


@pytest.mark.parametrize("content", ["", "[]", "{", '{"files": 1}', '{"circuit": "other"}'])
def test_a_record_of_keys_that_says_nothing(content: str, strings: Path, tmp_path: Path) -> None:
    circuit = write_circuit(tmp_path / "circuit")
    prove(circuit, srs_folder=strings)
    (circuit.path / "keys.json").write_text(content)
    assert reused(prove(circuit, srs_folder=strings)) == set()


def test_keys_of_another_reference_string_are_not_used(strings: Path, tmp_path: Path) -> None:
    circuit = write_circuit(tmp_path / "circuit")
    prove(circuit, srs_folder=strings)
    other = unsafe_srs(6, tmp_path / "others")
    with pytest.raises(OdpError, match="made with another reference string than"):
        verify(circuit, circuit.path / "proof.json", srs=other)
    run = prove(circuit, srs=other, srs_folder=strings)
    assert run.verified and reused(run) == set()


def test_keys_of_what_the_circuit_was_before_verify_nothing(strings: Path, tmp_path: Path) -> None:
    circuit = write_circuit(tmp_path / "circuit")
    prove(circuit, srs_folder=strings)
    another = write_circuit(tmp_path / "another", seed=5)
    (circuit.path / "network.onnx").write_bytes((another.path / "network.onnx").read_bytes())
    with pytest.raises(OdpError, match="were made before its network or settings changed"):
        verify(circuit, circuit.path / "proof.json", srs=strings / "test-6.srs")


def test_keys_that_were_sent_without_their_record(strings: Path, tmp_path: Path) -> None:
    circuit = write_circuit(tmp_path / "circuit")
    prove(circuit, srs_folder=strings)
    for name in ("keys.json", "pk.key", "network.ezkl", "witness.json", "input.json"):
        (circuit.path / name).unlink()
    assert verify(circuit, circuit.path / "proof.json", srs=strings / "test-6.srs")


def test_without_ezkl(strings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    circuit = write_circuit(tmp_path / "circuit")
    monkeypatch.setitem(sys.modules, "ezkl", None)
    with pytest.raises(OdpError, match="the package ezkl is not installed"):
        prove(circuit, srs_folder=strings)


def test_a_worker_that_does_not_see_the_folder(strings: Path, tmp_path: Path) -> None:
    from odp.backends.ezkl.parts import _prove_part

    srs = unsafe_srs(6, strings)
    with pytest.raises(OdpError, match=r"part-1: the worker on .* does not see '.*/part-1'"):
        _prove_part(0, tmp_path / "part-1", srs, strings, False)


def test_one_process_at_a_time(strings: Path, tmp_path: Path) -> None:
    circuit = write_circuit(tmp_path / "circuit")
    with locked(circuit.path), pytest.raises(OdpError, match="another odp ezkl prove is at work"):
        prove(circuit, srs_folder=strings)
    assert prove(circuit, srs_folder=strings).verified


def test_what_ezkl_says_survives_the_way_between_processes() -> None:
    import pickle

    with pytest.raises(EzklError) as caught:
        run_ezkl("verify", Path("nowhere"), Path("nowhere"), Path("nowhere"))
    again = pickle.loads(pickle.dumps(caught.value))
    assert again.said == caught.value.said and str(again) == str(caught.value)
    assert str(again).startswith("ezkl verify: ")


@pytest.mark.parametrize("interrupt", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupt_while_keys_are_made(
    interrupt: signal.Signals, strings: Path, tmp_path: Path
) -> None:
    # Keys for 2^14 rows take seconds, the circuit needs few.
    circuit = write_circuit(tmp_path / "circuit", logrows=14)
    srs = unsafe_srs(14, strings)
    script = "import sys\nfrom odp.cli import main\nmain(sys.argv[1:])"
    process = subprocess.Popen(
        [sys.executable, "-c", script, "ezkl", "prove", str(circuit.path), "--srs", str(srs)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    _wait((circuit.path / "network.ezkl").is_file)
    _wait(lambda: bool(_steps_of(process.pid)))
    children = _steps_of(process.pid)
    # The setup has begun, and is not done by a long way.
    time.sleep(0.5)
    assert process.poll() is None and not (circuit.path / "keys.json").is_file()
    process.send_signal(interrupt)
    out, errors = process.communicate(timeout=30)
    assert out == "" and "Traceback" not in errors
    if interrupt == signal.SIGINT:
        assert process.returncode == 130
        line = errors.splitlines()[-1]
        assert line == "error: interrupted; no partial output was left"
        assert not list(circuit.path.glob(".odp-*"))
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive, "a process of EZKL outlived its parent"
    assert not (circuit.path / "pk.key").is_file() and not (circuit.path / "keys.json").is_file()

    run = prove(circuit, srs=srs, srs_folder=strings)
    assert run.verified and reused(run) == set()
    assert {one.name for one in circuit.path.iterdir()} == FILES


def _steps_of(pid: int) -> list[psutil.Process]:
    return [
        child for child in psutil.Process(pid).children() if "odp.backends" in str(child.cmdline())
    ]


def _wait(done: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not done():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_step_that_dies_says_how(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the kernel's kill speaks of memory."""

    def message(code: int) -> str:
        ended = subprocess.CompletedProcess([], code, stdout=b"")
        monkeypatch.setattr(subprocess, "run", lambda *arguments, **options: ended)
        with pytest.raises(OdpError) as caught:
            run_ezkl("prove")
        return str(caught.value)

    assert "was killed, most likely for want of memory" in message(-signal.SIGKILL)
    assert message(-signal.SIGSEGV) == "ezkl prove crashed (Segmentation fault); try again"
    assert message(1) == "ezkl prove crashed (exit code 1); try again"
