"""`odp ezkl prove`, `verify` and `solidity` on circuits whose proofs take a second."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from ..ezkl.tiny_circuit import write_circuit, write_parts

pytest.importorskip("ezkl")

Command = Callable[..., Any]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Reference strings of tests stay out of the user's cache."""
    folder = tmp_path_factory.mktemp("cache")
    patch = pytest.MonkeyPatch()
    patch.setenv("XDG_CACHE_HOME", str(folder))
    yield folder / "odp" / "srs"
    patch.undo()


@pytest.fixture(scope="module")
def proven(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """A folder with `one` and `other`, proven circuits, and the proven parts `parts`."""
    from odp.backends.ezkl.parts import prove_parts
    from odp.backends.ezkl.prover import prove

    folder = tmp_path_factory.mktemp("proven")
    for name, seed in (("one", 0), ("other", 7)):
        assert prove(write_circuit(folder / name, seed=seed), srs_folder=cache).verified
    write_parts(folder / "parts")
    assert prove_parts(folder / "parts", srs_folder=cache).verdict.verified
    return folder


@pytest.fixture
def folder(proven: Path, tmp_path: Path) -> Path:
    """The same, to be changed."""
    shutil.copytree(proven, tmp_path / "copy")
    return tmp_path / "copy"


def string(folder: Path, logrows: int) -> Path:
    from odp.backends.ezkl.reference_string import unsafe_srs

    return unsafe_srs(logrows, folder)


def test_reference_strings_that_do_not_fit(folder: Path, command: Command, tmp_path: Path) -> None:
    short, whole = string(tmp_path, 4), string(tmp_path, 6).read_bytes()
    cases = [
        (short, "is for logrows 4, and the circuit needs 6 or more; `ezkl get-srs --logrows 6")
    ]
    for name, content, message in (
        ("random", bytes(range(1, 251)), "is no structured reference string of EZKL"),
        ("empty", b"", "is no structured reference string of EZKL"),
        ("cut", whole[:-7], "is not whole: a reference string for logrows 6 has 8,452 bytes"),
        ("longer", whole + b"x", "this file 8,453"),
        ("huge", (200).to_bytes(4, "little") + whole[4:], "is no structured reference string"),
    ):
        (tmp_path / name).write_bytes(content)
        cases.append((tmp_path / name, message))
    cases += [(tmp_path / "nowhere", "does not exist"), (tmp_path, "cannot read reference string")]
    for path, message in cases:
        for arguments in (["prove", "one"], ["verify", "one"], ["verify", "parts"]):
            line = command(
                "ezkl", arguments[0], folder / arguments[1], "--srs", path, program="odp"
            ).error()
            assert message in line and str(path) in line
    line = command("ezkl", "prove", folder / "parts", "--srs", short, program="odp").error()
    assert line.startswith("part-1: reference string")


def test_verify_names_what_is_missing(
    folder: Path, command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = string(tmp_path, 6)
    line = command("ezkl", "verify", folder / "one", "--srs", other, program="odp").error()
    assert "made with another reference string" in line
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    line = command("ezkl", "verify", folder / "one", program="odp").error()
    assert "no TEST reference string for logrows 6" in line and "--srs FILE" in line


def test_proofs_of_something_else_do_not_verify(folder: Path, command: Command) -> None:
    def verdict(*arguments: Any) -> tuple[int, str]:
        done = command("ezkl", "verify", folder / "one", *arguments, program="odp")
        assert done.err == ""
        return done.code, done.out

    assert verdict() == (0, "verified\n")
    assert verdict("--proof", folder / "other" / "proof.json") == (1, "NOT verified\n")
    code, out = verdict("--proof", folder / "other" / "proof.json", "--json")
    assert code == 1 and json.loads(out) == {"verified": False}

    genuine = json.loads((folder / "one" / "proof.json").read_text())

    def changed(**fields: Any) -> tuple[int, str]:
        path = folder / "changed.json"
        path.write_text(json.dumps(genuine | fields))
        return verdict("--proof", path)

    public = genuine["instances"][0]
    assert len(public) == 8
    assert changed() == (0, "verified\n")
    for number in range(len(public)):
        zeroed = [*public[:number], f"{'2b':0<64}", *public[number + 1 :]]
        assert changed(instances=[zeroed]) == (1, "NOT verified\n"), number
    assert changed(instances=[public[:-1]]) == (1, "NOT verified\n")
    assert changed(instances=[]) == (1, "NOT verified\n")
    assert changed(proof=genuine["proof"][:100]) == (1, "NOT verified\n")
    assert changed(proof=[]) == (1, "NOT verified\n")

    # The key of another circuit.
    (folder / "one" / "vk.key").write_bytes((folder / "other" / "vk.key").read_bytes())
    assert verdict() == (1, "NOT verified\n")


@pytest.mark.parametrize(
    "content", ["", "no proof", "{}", "[]", '{"instances": 1}', '{"proof": [1], "instances": []}']
)
def test_a_file_that_is_no_proof(content: str, folder: Path, command: Command) -> None:
    path = folder / "file.json"
    path.write_text(content)
    done = command("ezkl", "verify", folder / "one", "--proof", path, program="odp")
    if done.code == 1:
        assert done.out == "NOT verified\n"
    else:
        assert "file.json' is no proof of EZKL (" in done.error()


def test_a_key_that_is_none(folder: Path, command: Command) -> None:
    for content in (b"", b"no key", (folder / "one" / "vk.key").read_bytes()[:500]):
        (folder / "one" / "vk.key").write_bytes(content)
        line = command("ezkl", "verify", folder / "one", program="odp").error()
        assert "vk.key' is no verifying key, or not whole" in line


def test_parts_verify(folder: Path, command: Command) -> None:
    parts = folder / "parts"
    done = command("ezkl", "verify", parts, program="odp")
    assert done.code == 0 and done.err == ""
    assert done.out.splitlines() == ["part-1: verified", "part-2: verified", "1 links: verified"]
    record = json.loads(command("ezkl", "verify", parts, "--json", program="odp").out)
    assert record == {
        "parts": {"part-1": True, "part-2": True},
        "links": 1,
        "broken": [],
        "verified": True,
    }

    # A good proof of other values is no part of this computation.
    from odp.backends.ezkl.prover import prove
    from odp.circuit_comparison import srs_folder

    apart = write_circuit(folder / "apart", (1, 2, 3, 4), seed=2, names=("middle", "y"))
    prove(apart, srs_folder=srs_folder())
    shutil.copy(apart.path / "proof.json", parts / "part-2" / "proof.json")
    done = command("ezkl", "verify", parts, program="odp")
    assert done.code == 1 and done.out.splitlines() == [
        "part-1: verified",
        "part-2: verified",
        "'middle' differs between part-1 and part-2",
        "1 links: NOT verified",
    ]

    # A proof of another circuit is none of this part.
    shutil.copy(folder / "other" / "proof.json", parts / "part-2" / "proof.json")
    done = command("ezkl", "verify", parts, program="odp")
    assert done.code == 1 and "part-2: NOT verified" in done.out

    (parts / "part-2" / "proof.json").unlink()
    line = command("ezkl", "verify", parts, program="odp").error()
    assert line.startswith("part-2: ") and "proof.json' does not exist" in line


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_part_that_fails_is_named(jobs: int, folder: Path, command: Command) -> None:
    (folder / "parts" / "part-2" / "input.json").write_text('{"input_data": [["00"]]}')
    line = command("ezkl", "prove", folder / "parts", "--jobs", jobs, program="odp").error()
    assert line.startswith("part-2: ") and "not this circuit" in line


def test_parts_at_a_time_and_memory(folder: Path, command: Command) -> None:
    from odp.backends.ezkl.memory import machine_memory

    for part in (folder / "parts").glob("part-*"):
        manifest = json.loads((part / "manifest.json").read_text())
        manifest["predicted"]["peak_memory"] = int(0.7 * machine_memory())
        (part / "manifest.json").write_text(json.dumps(manifest))
    line = command("ezkl", "prove", folder / "parts", "--jobs", "2", program="odp").error()
    assert line.startswith("2 parts at a time are predicted to need") and "--jobs" in line
    assert command("ezkl", "prove", folder / "parts", program="odp").code == 0
    done = command("ezkl", "prove", folder / "parts", "--jobs", "2", "--force", program="odp")
    assert done.code == 0 and "1 links: verified" in done.out


def test_parts_on_a_dask_cluster(folder: Path, command: Command) -> None:
    distributed = pytest.importorskip("distributed")
    import joblib

    from odp.backends.ezkl.parts import prove_parts
    from odp.circuit_comparison import srs_folder

    parts = folder / "parts"
    for name in ("part-1", "part-2"):
        (parts / name / "proof.json").unlink()
        (parts / name / "keys.json").unlink()
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as cluster:
        address = cluster.scheduler_address
        done = command("ezkl", "prove", parts, "--scheduler", address, "--json", program="odp")
        assert done.code == 0, done.err
        run = json.loads(done.out)
        assert run["verified"] and run["links"] == 1
        assert all(part["unsafe_srs"] for part in run["parts"].values())
        assert not any(step["reused"] for p in run["parts"].values() for step in p["steps"])

        with distributed.Client(cluster) as client, joblib.parallel_config(backend="dask"):
            at_work = client.run(lambda: "odp.backends.ezkl.prover" in sys.modules)
            assert any(at_work.values())
            again = prove_parts(parts, srs_folder=srs_folder())
        assert again.verdict.verified
        assert all(any(step.reused for step in run.steps) for run in again.runs.values())

        (parts / "part-1" / "input.json").write_text('{"input_data": [["00"]]}')
        line = command("ezkl", "prove", parts, "--scheduler", address, program="odp").error()
        assert line.startswith("part-1: ") and "not this circuit" in line
    assert command("ezkl", "verify", parts, program="odp").code == 0


def test_workers_of_a_cluster_that_die(monkeypatch: pytest.MonkeyPatch) -> None:
    distributed = pytest.importorskip("distributed")
    import dask

    from odp.approximations.errors import OdpError
    from odp.backends.ezkl.part_workers import workers

    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, dashboard_address=None
        ) as cluster,
        workers(scheduler=cluster.scheduler_address) as dying,
    ):
        assert list(dying.run(abs, [(-1,)])) == [1]
        with pytest.raises(OdpError, match="workers of Dask were killed"):
            list(dying.run(os._exit, [(1,)]))

    monkeypatch.setattr("odp.backends.ezkl.part_workers._PATIENCE", 1)
    with (
        distributed.LocalCluster(
            n_workers=0, threads_per_worker=1, dashboard_address=None
        ) as empty,
        pytest.raises(OdpError, match="has no workers; start some with"),
        workers(scheduler=empty.scheduler_address),
    ):
        pass


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("parts", "--backend", "nonsense"), "joblib has no backend 'nonsense'"),
        (("parts", "--backend", "multiprocessing"), "joblib: "),
        (("parts", "--backend", "dask"), "needs --scheduler ADDRESS"),
        (("parts", "--backend", "loky", "--scheduler", "tcp://x:1"), "leave out --backend loky"),
        (("parts", "--scheduler", "tcp://127.0.0.1:1"), "no Dask scheduler answers at 'tcp://127"),
        (("parts", "--scheduler", "nonsense"), "no Dask scheduler answers at 'nonsense'"),
        (("parts", "--jobs", "0"), "--jobs"),
        (("parts", "--input", "x.npz"), "--input goes with a whole circuit"),
        (("one", "--backend", "loky"), "go with the parts of a circuit, and 'one' holds none"),
    ],
)
def test_where_parts_cannot_be_proven(
    arguments: tuple[str, ...],
    message: str,
    proven: Path,
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(proven)
    monkeypatch.setattr("odp.backends.ezkl.part_workers._PATIENCE", 1)
    assert message in command("ezkl", "prove", *arguments, program="odp").error()


def test_without_dask(proven: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    line = command(
        *("ezkl", "prove", proven / "parts", "--scheduler", "tcp://127.0.0.1:1"), program="odp"
    ).error()
    assert line.startswith("--scheduler needs the package distributed") and "pip install" in line


@pytest.mark.parametrize("killed", ["all", "worker"])
def test_an_end_while_two_parts_are_proven(killed: str, cache: Path, tmp_path: Path) -> None:
    """Ctrl-C as a terminal sends it, to the whole group; a worker that the kernel kills."""
    (tmp_path / "parts").mkdir()
    for number in (1, 2):
        write_circuit(tmp_path / "parts" / f"part-{number}", logrows=14)
    tree = {
        "parts": [
            {"folder": f"part-{number}", "inputs": ["x"], "outputs": ["y"]} for number in (1, 2)
        ],
        "links": [],
    }
    (tmp_path / "parts" / "links.json").write_text(json.dumps(tree))
    srs = string(cache, 14)
    script = "import sys\nfrom odp.cli import main\nmain(sys.argv[1:])"
    process = subprocess.Popen(
        [
            *(sys.executable, "-c", script, "ezkl", "prove", str(tmp_path / "parts")),
            *("--jobs", "2", "--srs", str(srs)),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )

    def written() -> list[Path]:
        return list(tmp_path.glob("parts/part-*/network.ezkl"))

    until = time.monotonic() + 60
    while len(written()) < 2 and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(0.5)
    assert process.poll() is None
    children = psutil.Process(process.pid).children(recursive=True)
    if killed == "all":
        os.killpg(process.pid, signal.SIGINT)
    else:
        next(child for child in children if "popen_loky" in " ".join(child.cmdline())).kill()
    out, errors = process.communicate(timeout=60)
    code, line = {
        "all": (130, "error: interrupted; no partial output was left"),
        "worker": (2, "error: a worker was killed, most likely for want of memory: use fewer"),
    }[killed]
    assert process.returncode == code and out == "", errors
    assert len(errors.strip().splitlines()) == 1 and errors.strip().startswith(line)
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive
    assert not list(tmp_path.glob("parts/part-*/*.key"))


# Answers as the compiler does, as far as EZKL looks at it.
SOLC = """#!{python}
import json, sys
source = json.load(sys.stdin)
(name, content), = source["sources"].items()
assert "contract Halo2Verifier" in content["content"]
assert sys.argv[1:] == ["--standard-json"]
code = {{"object": "00", "opcodes": "", "sourceMap": "", "linkReferences": {{}}}}
contract = {{"abi": [], "evm": {{"bytecode": code, "deployedBytecode": code}}}}
contracts = {{name: {{"Halo2Verifier": contract}}}}
print(json.dumps({{"errors": [], "sources": {{}}, "contracts": contracts}}))
"""


def test_a_contract(
    folder: Path, command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    target = tmp_path / "Verifier.sol"
    arguments = ("ezkl", "solidity", folder / "one", "-o", target)
    line = command(*arguments, program="odp").error()
    assert line.startswith("no Solidity compiler: put solc 0.8.20") and "solc-select" in line

    solc = tmp_path / "solc"
    solc.write_text(SOLC.format(python=sys.executable))
    solc.chmod(0o755)
    done = command(*arguments, program="odp")
    assert done.code == 0, done.err
    assert "contract Halo2Verifier" in target.read_text()
    assert json.loads(target.with_suffix(".abi").read_text()) == []
    assert "TEST reference string" in done.err and "Verifier.sol" in done.out.replace("\n", "")

    solc.write_text("#!/bin/sh\necho 'Error: out of order' >&2\nexit 1\n")
    before = target.read_text()
    line = command(*arguments, program="odp").error()
    assert f"no contract with the compiler '{solc}'" in line
    assert target.read_text() == before and not list(tmp_path.glob(".odp-*"))

    line = command("ezkl", "solidity", folder / "parts", program="odp").error()
    assert "holds parts of a circuit: make a contract of each" in line
    line = command("ezkl", "solidity", folder / "one", "-o", "x.txt", program="odp").error()
    assert "ends in .sol" in line
    (folder / "one" / "vk.key").unlink()
    assert "vk.key' does not exist" in command(*arguments, program="odp").error()
