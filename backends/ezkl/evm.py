"""A contract in Solidity that verifies proofs of a circuit on an Ethereum virtual machine."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from odp.approximations.errors import OdpError
from odp.backends.ezkl.artefacts import CircuitFolder
from odp.backends.ezkl.keys import check_origin
from odp.backends.ezkl.proving import EzklError, run_ezkl

__all__ = ["write_verifier"]

# The version that EZKL 23 asks for; it looks for it where svm installs compilers, and nowhere else.
_VERSION = "0.8.20"


def write_verifier(circuit: CircuitFolder, target: Path, *, srs: Path) -> Path:
    """Write a contract that verifies proofs of a circuit, and its interface.

    Args:
        circuit: with its verifying key in the folder.
        target: of the contract, `*.sol`.
        srs: the reference string of the keys.

    Returns:
        Where the interface is: beside the contract, `*.abi`.

    Raises:
        OdpError: there is no key or no compiler, the reference string is another one, or the
            compiler refuses.
    """
    compiler = shutil.which("solc")
    if compiler is None:
        raise OdpError(
            f"no Solidity compiler: put solc {_VERSION} or later on the PATH (pip install "
            f"solc-select && solc-select install {_VERSION} && solc-select use {_VERSION}, or from "
            "https://github.com/ethereum/solidity/releases)"
        )
    key, interface = circuit.path / "vk.key", target.with_suffix(".abi")
    if not key.is_file():
        raise OdpError(f"'{key}' does not exist; odp ezkl prove makes it")
    check_origin(circuit, srs)
    # EZKL would download a compiler without asking, and does not look at the PATH.
    with tempfile.TemporaryDirectory(prefix="odp-solc-") as home:
        place = Path(home) / ".svm" / _VERSION / f"solc-{_VERSION}"
        place.parent.mkdir(parents=True)
        place.symlink_to(Path(compiler).absolute())
        try:
            run_ezkl(
                "create_evm_verifier",
                key,
                circuit.path / "settings.json",
                target,
                interface,
                srs,
                False,
                writes=(target, interface),
                environment={"HOME": home},
            )
        except EzklError as error:
            raise OdpError(f"no contract with the compiler '{compiler}': {error.said}") from None
    return interface
