"""`import odp` and `--help` load nothing heavy; how long they take is a benchmark, not a test."""

from __future__ import annotations

import subprocess
import sys

HEAVY = {"scipy", "sympy", "mpmath", "torch", "transformers", "onnx", "onnx_ir"} | {
    "onnxruntime",
    "onnxscript",
    "jinja2",
}


def modules_after(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after running `code`."""
    script = f"import sys\n{code}\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", script], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


def test_import_odp_loads_no_numerics() -> None:
    loaded = modules_after("import odp")
    assert not loaded & (HEAVY | {"numpy", "click", "rich"})


def test_help_loads_no_framework() -> None:
    code = (
        "from odp.cli.entry import rewrite_main\n"
        "try:\n    rewrite_main(['--help'])\nexcept SystemExit as stop:\n    assert stop.code == 0"
    )
    assert not modules_after(code) & (HEAVY | {"numpy"})


def test_the_public_names_are_loaded_when_they_are_used() -> None:
    loaded = modules_after("import odp\nassert all(hasattr(odp, n) for n in odp.__all__)")
    assert "numpy" in loaded


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    code = (
        "import odp\ntry:\n    odp.nothing\n"
        "except AttributeError as error:\n    assert 'nothing' in str(error)\n"
        "else:\n    raise SystemExit(1)"
    )
    modules_after(code)
