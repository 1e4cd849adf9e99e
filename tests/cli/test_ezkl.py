"""`odp ezkl`: from a model to a proof that verifies, and to one that does not."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from ..ezkl.blocks import gated_mlp

pytest.importorskip("ezkl")

Command = Callable[..., Any]


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Reference strings of tests stay out of the user's cache."""
    patch = pytest.MonkeyPatch()
    patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A block of a language model, and inputs: data.npz, and large.npz far outside of them."""
    folder = tmp_path_factory.mktemp("ezkl")
    onnx.save(gated_mlp(2, 8, 12), folder / "model.onnx")
    data = np.random.default_rng(0).standard_normal((6, 1, 2, 8)).astype(np.float32)
    np.savez(folder / "data.npz", x=data)
    np.savez(folder / "large.npz", x=100.0 * data)
    np.savez(folder / "other.npz", y=data)
    return folder


@pytest.fixture(scope="module")
def circuit(folder: Path) -> Path:
    """The compiled block."""
    from odp.circuits import compile_circuit

    made = compile_circuit(folder / "model.onnx", calibration=folder / "data.npz", error=0.05)
    made.save(folder / "circuit")
    return folder / "circuit"


def test_compile(folder: Path, command: Command, tmp_path: Path) -> None:
    done = command(
        *("ezkl", "compile", folder / "model.onnx", "-c", folder / "data.npz"),
        *("--error", "0.05", "-o", tmp_path / "made"),
        program="odp",
    )
    assert done.code == 0, done.err
    assert "no tables" in done.out and "Rescales" in done.out
    assert "Degrees of freedom" in done.out and "decomp_legs" in done.out
    names = {path.name for path in (tmp_path / "made").iterdir()}
    assert names == {"network.onnx", "settings.json", "input.json", "manifest.json"}
    manifest = json.loads((tmp_path / "made" / "manifest.json").read_text())
    assert manifest["error"] <= 0.05
    assert {e["function"] for e in manifest["expressions"]} == {"rsqrt", "sigmoid"}
    for site in manifest["expressions"]:
        assert "degree" in site["expression"] or "steps" in site["expression"]
        assert site["absolute_error"] > 0.0 and site["error_kind"] in ("certified", "measured")
    freedoms = {choice["freedom"].partition(" at ")[0] for choice in manifest["choices"]}
    assert {"decomp_legs", "num_inner_cols, logrows", "rescales", "rsqrt", "sigmoid"} <= freedoms
    settings = json.loads((tmp_path / "made" / "settings.json").read_text())
    assert manifest["predicted"]["rows"] == pytest.approx(settings["num_rows"], rel=0.01)


def test_compile_with_scales_of_ezkl(folder: Path, command: Command, tmp_path: Path) -> None:
    done = command(
        *("ezkl", "compile", folder / "model.onnx", "-c", folder / "data.npz"),
        *("--profile", "plain", "--error", "0.05", "-o", tmp_path / "made"),
        program="odp",
    )
    assert done.code == 0, done.err
    assert "scale 7" in done.out and "tables none" in done.out
    names = {path.name for path in (tmp_path / "made").iterdir()}
    assert names == {"network.onnx", "settings.json", "input.json", "manifest.json"}
    manifest = json.loads((tmp_path / "made" / "manifest.json").read_text())
    assert manifest["profile"] == "plain" and manifest["error"] <= 0.05
    data = json.loads((tmp_path / "made" / "input.json").read_text())["input_data"]
    assert np.allclose(data[0], np.load(folder / "data.npz")["x"][0].ravel())
    cost = json.loads(command("ezkl", "cost", tmp_path / "made", "--json", program="odp").out)
    assert cost["rows"] == manifest["predicted"]["rows"]


def test_policies(folder: Path, command: Command, tmp_path: Path) -> None:
    for profile in ("scheduled", "plain"):
        done = command(
            *("ezkl", "compile", folder / "model.onnx", "-c", folder / "data.npz"),
            *("--policy", "cheapest", "--profile", profile, "--error", "0.05"),
            *("-o", tmp_path / profile, "--json"),
            program="odp",
        )
        assert done.code == 0, done.err
        policy = json.loads(done.out)["policy"]
        assert policy["name"] == "cheapest" and {"nothing", "roots"} <= set(policy["circuits"])
        settings = json.loads((tmp_path / profile / "settings.json").read_text())
        assert settings["required_lookups"] == []


def test_a_scale_that_is_too_coarse(folder: Path, command: Command, tmp_path: Path) -> None:
    done = command(
        *("ezkl", "compile", folder / "model.onnx", "-c", folder / "data.npz", "-q"),
        *("--profile", "plain", "--scale", "5", "-o", tmp_path / "made"),
        program="odp",
    )
    assert done.code == 0 and done.out == ""
    assert "warning: at scale 5 EZKL's witness is off by" in done.err


def test_a_proof_from_start_to_end(circuit: Path, command: Command, tmp_path: Path) -> None:
    done = command("ezkl", "prove", circuit, "--json", program="odp")
    assert done.code == 0, done.err
    assert "TEST reference string" in done.err
    run = json.loads(done.out)
    assert run["verified"] and run["unsafe_srs"] and run["witness_error"] is None
    manifest = json.loads((circuit / "manifest.json").read_text())
    assert run["peak_memory"] == pytest.approx(manifest["predicted"]["peak_memory"], rel=0.25)
    assert run["sizes"]["pk.key"] == pytest.approx(manifest["predicted"]["proving_key"], rel=0.01)

    # Keys are those of the circuit, and are not made again.
    again = json.loads(command("ezkl", "prove", circuit, "--json", program="odp").out)
    reused = {step["name"] for step in again["steps"] if step["reused"]}
    assert reused == {"compile_circuit", "setup"}

    assert command("ezkl", "verify", circuit, program="odp").code == 0

    proof = json.loads((circuit / "proof.json").read_text())
    proof["proof"][200] = (proof["proof"][200] + 1) % 256
    tampered = tmp_path / "tampered.json"
    tampered.write_text(json.dumps(proof))
    done = command("ezkl", "verify", circuit, "--proof", tampered, program="odp")
    assert done.code == 1 and done.out == "NOT verified\n"
    assert not [path for path in circuit.iterdir() if path.name.startswith(".odp-")]


@pytest.mark.parametrize("links", ["committed", "public"])
def test_parts_are_proven_and_linked(
    links: str, folder: Path, command: Command, tmp_path: Path
) -> None:
    from odp.backends.ezkl.linking import check_links, read_parts
    from odp.circuits import compile_circuit

    onnx.save(gated_mlp(4, 64, 172), tmp_path / "model.onnx")
    data = np.random.default_rng(0).standard_normal((6, 1, 4, 64)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=data)
    made = compile_circuit(tmp_path / "model.onnx", calibration=tmp_path / "data.npz", error=0.05)
    made.save(tmp_path / "whole")
    memory = 0.95 * made.compiled.cost.resources.peak_memory / 1e9
    done = command(
        *("ezkl", "split", tmp_path / "whole", "--memory", str(memory), "--json"),
        *("--links", links),
        program="odp",
    )
    assert done.code == 0, done.err
    assert len(json.loads(done.out)) >= 2
    parts = tmp_path / "whole.parts"
    done = command("ezkl", "prove", parts, "--json", program="odp")
    assert done.code == 0, done.err
    run = json.loads(done.out)
    assert run["verified"] and run["links"] >= 1
    for name, part in run["parts"].items():
        manifest = json.loads((parts / name / "manifest.json").read_text())
        predicted = manifest["predicted"]["proving_key"]
        assert part["sizes"]["pk.key"] == pytest.approx(predicted, rel=0.01)
    # A proof of other values is valid by itself, but is linked to nothing.
    found, joined = read_parts(parts)
    string = Path(os.environ["XDG_CACHE_HOME"]) / "odp" / "srs"
    (string,) = string.glob(f"test-{manifest['predicted']['logrows']}.srs")
    assert not check_links(found, joined, string)
    proof = found[0].folder / "proof.json"
    tree = json.loads(proof.read_text())
    if links == "public":
        tree["instances"][0][-1] = tree["instances"][0][0]
    else:
        tree["proof"][:64] = tree["proof"][64:128]
    proof.write_text(json.dumps(tree))
    assert check_links(found, joined, string)


def test_cost(folder: Path, circuit: Path, command: Command) -> None:
    ours = json.loads(command("ezkl", "cost", circuit, "--json", program="odp").out)
    done = command(
        *("ezkl", "cost", folder / "model.onnx", "-c", folder / "data.npz"),
        *("--standard", "--json"),
        program="odp",
    )
    standard = json.loads(done.out)
    assert ours["lookups"] == [] and [one["name"] for one in standard["lookups"]] == ["Sigmoid"]
    assert ours["rows"] < standard["rows"]
    text = command("ezkl", "cost", circuit, program="odp").out
    assert "rows are rescales" in " ".join(text.split())


def test_compare(folder: Path, command: Command, tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    done = command(
        *("ezkl", "compare", folder / "model.onnx", "-c", folder / "data.npz"),
        *("--error", "0.05", "--goal", "scale 7", "-o", tmp_path / "all"),
        *("--report", report, "--json"),
        program="odp",
    )
    assert done.code == 0, done.err
    standard, ours = json.loads(done.out)
    assert standard["failure"] == "" and standard["tables"] == ["Sigmoid"]
    assert ours["tables"] == [] and ours["rows"] < standard["rows"]
    assert ours["error"] <= 0.05 and "<html>" in report.read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("compile", "nowhere.onnx"), "nowhere.onnx"),
        (("compile", "model.onnx", "-c", "other.npz"), "'y' in other.npz is no input"),
        (("compile", "model.onnx", "-c", "data.npz", "--error", "2"), "between 0 and 1"),
        (("compile", "model.onnx", "-c", "data.npz", "--error", "1e-12"), "1e-12"),
        (("compile", "model.onnx", "-p", "rsqrt", "-c", "data.npz"), "is a Sigmoid"),
        (("compile", "model.onnx", "--scale", "7"), "--scale is of --profile plain"),
        (("prove", "nowhere"), "has no network.onnx"),
        (("prove", "circuit", "--input", "large.npz"), "unlike the calibration data: node '"),
        (("prove", "circuit", "--input", "other.npz"), "'y' in other.npz is no input"),
        (("prove", "circuit", "--srs", "nowhere.srs"), "'nowhere.srs' does not exist"),
        (("verify", "circuit", "--proof", "nowhere.json"), "'nowhere.json' does not exist"),
    ],
)
def test_bad_input_is_one_line(
    arguments: tuple[str, ...],
    message: str,
    folder: Path,
    circuit: Path,
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(folder)
    assert message in command("ezkl", *arguments, program="odp").error()


def test_memory_that_is_not_there(circuit: Path, command: Command, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(circuit, copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["predicted"]["peak_memory"] = 10**15
    (copy / "manifest.json").write_text(json.dumps(manifest))
    line = command("ezkl", "prove", copy, program="odp").error()
    assert "predicted to need 1000000.0 GB" in line and "--force" in line
