"""Decoder layers of SmolLM2-135M and BitNet b1.58-2B-4T at their real sizes as circuits.

    python benchmarks/decoder_layers.py              # rows, predicted keys and memory
    python benchmarks/decoder_layers.py --prove      # proofs, too: a quarter of an hour

SmolLM2's layer has its real weights, and is proven in linked parts; beside it stands the circuit
that EZKL makes of the same layer at scale 7.  BitNet's layer (69.5 million ternary weights) is a
dry run, since EZKL's matrix products read each weight in columns of their own; all of it that is
not linear is proven at its real width, with squared activations beyond 65504.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
from circuits import RESULTS as BLOCK_RESULTS
from decoder_layer_models import bitnet_layer, bitnet_parts, smollm2_layer
from environment import environment
from rich.console import Console

RESULTS = BLOCK_RESULTS.with_name("decoder_layers.json")
SECONDS = 60.0


@click.command()
@click.option("--prove", "with_proof", is_flag=True, help="Make keys and proofs, too.")
@click.option("--tokens", default=4, show_default=True)
@click.option("--memory", default=14.0, show_default=True, metavar="GB", help="Of a part.")
@click.option("--only", multiple=True, type=click.Choice(["smollm2", "bitnet-parts", "bitnet"]))
@click.option("--output", type=click.Path(path_type=Path), default=RESULTS, show_default=True)
def main(with_proof: bool, tokens: int, memory: float, only: tuple[str, ...], output: Path) -> None:
    """Compile the layers, prove what can be proven here, and check the demands."""
    console = Console()
    tree: dict[str, Any] = json.loads(output.read_text()) if only and output.is_file() else {}
    tree["environment"] = environment()
    with tempfile.TemporaryDirectory(prefix="odp-layers-") as name:
        folder = Path(name)
        if not only or "smollm2" in only:
            tree["smollm2"] = _smollm2(folder, tokens, memory, with_proof, console)
            output.write_text(json.dumps(tree, indent=1))
        if not only or "bitnet-parts" in only:
            tree["bitnet_parts"] = {
                part: _proven(model, data, folder, with_proof, console)
                for part, (model, data) in bitnet_parts(folder, tokens).items()
            }
            output.write_text(json.dumps(tree, indent=1))
        if not only or "bitnet" in only:
            tree["bitnet"] = _dry_run(*bitnet_layer(folder, tokens), console)
            output.write_text(json.dumps(tree, indent=1))
    missed = list(_missed(tree))
    for one in missed:
        console.print(f"[bold red]missed[/]: {one}")
    raise SystemExit(1 if missed else 0)


def _smollm2(
    folder: Path, tokens: int, memory: float, with_proof: bool, console: Console
) -> dict[str, Any]:
    from odp.backends.ezkl.artefacts import CircuitFolder
    from odp.backends.ezkl.comparison import standard
    from odp.backends.ezkl.linking import check_links, read_parts
    from odp.backends.ezkl.run_arguments import RunArguments
    from odp.backends.ezkl.splitting import split
    from odp.circuit_comparison import lowered_original, srs_folder

    model, data = smollm2_layer(folder, tokens)
    compiled, record = _compiled(model, data, 0.02, console)
    whole = folder / "smollm2.circuit"
    compiled.save(whole)
    beside = standard(
        "EZKL, scale 7",
        lowered_original(model, calibration=data),
        compiled.inputs[0],
        compiled.outputs[0],
        folder / "standard",
        RunArguments(ignore_range_check_inputs_outputs=True),
        goal="scale 7",
        with_proof=with_proof,
        srs_folder=srs_folder(),
    )
    console.print(
        f"EZKL at scale 7: {beside.rows:,} rows, k {beside.logrows}, tables "
        f"{', '.join(beside.tables)}, error {beside.error}; {beside.failure}"
    )
    record["standard"] = beside.to_dict()
    parts = split(CircuitFolder(whole), folder / "parts", memory * 1e9)
    record["parts"] = [_proof(part.folder, with_proof, console) for part in parts]
    if with_proof:
        _, links = read_parts(folder / "parts")
        string = srs_folder() / f"test-{record['parts'][0]['logrows']}.srs"
        record["links"] = len(links)
        record["broken_links"] = len(check_links(parts, links, string))
        for key in ("setup_seconds", "prove_seconds", "proving_key"):
            record[key] = sum(part[key] for part in record["parts"])
        record["peak_memory"] = max(part["peak_memory"] for part in record["parts"])
        console.print(
            f"together: setup {record['setup_seconds']:.0f} s, proofs "
            f"{record['prove_seconds']:.0f} s, keys {record['proving_key'] / 1e9:.1f} GB, peak "
            f"memory {record['peak_memory'] / 1e9:.1f} GB; {len(links)} links, "
            f"{record['broken_links']} broken"
        )
    return record


def _proven(
    model: Path, data: Path, folder: Path, with_proof: bool, console: Console
) -> dict[str, Any]:
    compiled, record = _compiled(model, data, 0.01, console)
    target = folder / f"{model.stem}.circuit"
    compiled.save(target)
    return record | _proof(target, with_proof, console)


def _dry_run(model: Path, data: Path, console: Console) -> dict[str, Any]:
    compiled, record = _compiled(model, data, 0.02, console)
    resources = compiled.compiled.cost.resources
    console.print(
        f"predicted for the whole layer: key {resources.proving_key / 1e9:.0f} GB, memory "
        f"{resources.peak_memory / 1e9:.0f} GB"
    )
    return record


def _compiled(model: Path, data: Path, error: float, console: Console) -> Any:
    from odp.circuits import compile_circuit

    started = time.perf_counter()
    compiled = compile_circuit(model, calibration=data, error=error)
    seconds = time.perf_counter() - started
    found, cost = compiled.compiled, compiled.compiled.cost
    exponents = [
        limit
        for node, limit in zip(found.program.circuit.nodes, found.limits, strict=True)
        if node.value is None
    ]
    record = {
        "model": model.stem,
        "seconds_to_compile": seconds,
        "rows": cost.rows,
        "logrows": found.arguments.logrows,
        "inner_columns": found.arguments.num_inner_cols,
        "digits": found.arguments.decomp_legs,
        "tables": len(cost.lookups),
        "error": found.error,
        "largest_value": float(np.exp2(max(exponents))),
        "predicted_key": cost.resources.proving_key,
        "predicted_memory": cost.resources.peak_memory,
    }
    console.print(
        f"\n[bold]{model.stem}[/]: {cost.rows:,} rows, k {found.arguments.logrows}, "
        f"{len(cost.lookups)} tables, error {found.error:.2g}, values up to "
        f"{record['largest_value']:.2g}; compiled in {seconds:.0f} s"
    )
    return compiled, record


def _proof(folder: Path, with_proof: bool, console: Console) -> dict[str, Any]:
    from odp.backends.ezkl.artefacts import CircuitFolder
    from odp.backends.ezkl.prover import prove
    from odp.circuit_comparison import srs_folder

    circuit = CircuitFolder(folder)
    predicted = circuit.manifest["predicted"]
    record: dict[str, Any] = {
        "logrows": circuit.logrows,
        "rows": circuit.settings["num_rows"],
        "predicted": predicted,
    }
    if with_proof:
        run = prove(circuit, srs_folder=srs_folder())
        record |= {
            "setup_seconds": run.seconds("setup"),
            "prove_seconds": run.seconds("prove"),
            "proving_key": run.sizes["pk.key"],
            "peak_memory": run.peak_memory,
            "witness_equals_our_integers": run.witness_error is None,
            "verified": run.verified,
        }
        console.print(
            f"{folder.name}: {record['rows']:,} rows, setup {record['setup_seconds']:.0f} s, proof "
            f"{record['prove_seconds']:.0f} s, key {record['proving_key'] / 1e9:.2f} GB, memory "
            f"{record['peak_memory'] / 1e9:.2f} GB (predicted "
            f"{predicted['peak_memory'] / 1e9:.2f}), verified: {run.verified}"
        )
        # A key of some gigabytes that nobody needs any more.
        (folder / "pk.key").unlink()
    return record


def _missed(tree: dict[str, Any]) -> Any:
    """What was demanded and is not so."""
    smollm2 = tree.get("smollm2", {})
    if smollm2.get("seconds_to_compile", 0.0) > SECONDS:
        yield f"compiling SmolLM2's layer took {smollm2['seconds_to_compile']:.0f} s"
    if smollm2.get("broken_links"):
        yield "links between parts are broken"
    circuits = [*smollm2.get("parts", ()), *tree.get("bitnet_parts", {}).values()]
    for one in circuits:
        if abs(one["rows"] / one["predicted"]["rows"] - 1.0) > 0.01:
            yield f"{one['rows']} rows, and {one['predicted']['rows']} were predicted"
        if "verified" not in one:
            continue
        if not (one["verified"] and one["witness_equals_our_integers"]):
            yield f"a part with {one['rows']} rows was not verified"
        if abs(one["predicted"]["peak_memory"] / one["peak_memory"] - 1.0) > 0.25:
            yield f"{one['peak_memory']} bytes, not {one['predicted']['peak_memory']}"
    gate = tree.get("bitnet_parts", {}).get("gate", {})
    if gate and gate["largest_value"] <= 65504.0:
        yield "squared ReLU stayed within the range of float16"


if __name__ == "__main__":
    main()
