"""`odp ezkl solidity`: a contract that verifies proofs of a circuit."""

from __future__ import annotations

import json
from pathlib import Path

import rich_click as click

__all__ = ["solidity_command"]


@click.command("solidity")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE.sol",
    help="Default: Verifier.sol in FOLDER. The interface goes beside it, as FILE.abi.",
)
@click.option(
    "--srs",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The reference string that the keys were made with. Default: the test one.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of lines.")
def solidity_command(folder: Path, output: Path | None, srs: Path | None, as_json: bool) -> int:
    """Write a Solidity contract that verifies proofs of the circuit in FOLDER.

    odp ezkl prove has to have made the keys. Needs the compiler solc on the PATH.
    """
    from odp.backends.ezkl.artefacts import CircuitFolder
    from odp.backends.ezkl.evm import write_verifier
    from odp.backends.ezkl.reference_string import stored_srs
    from odp.backends.whole_files import check_writable
    from odp.circuit_comparison import srs_folder
    from odp.cli.terminal import Terminal

    if (folder / "links.json").is_file():
        raise click.UsageError(
            f"'{folder}' holds parts of a circuit: make a contract of each, as of "
            f"'{folder / 'part-1'}'"
        )
    circuit = CircuitFolder(folder)
    target = output or folder / "Verifier.sol"
    if target.suffix != ".sol":
        raise click.UsageError(f"'{target}' is the name of no contract: it ends in .sol")
    check_writable(target)
    string = srs or stored_srs(circuit.logrows, srs_folder())
    interface = write_verifier(circuit, target, srs=string)
    if as_json:
        size = target.stat().st_size
        click.echo(json.dumps({"contract": str(target), "interface": str(interface), "size": size}))
        return 0
    terminal = Terminal()
    if srs is None:
        terminal.errors.print("warning: a TEST reference string: anybody could forge proofs")
    terminal.wrote(target)
    terminal.wrote(interface)
    return 0
