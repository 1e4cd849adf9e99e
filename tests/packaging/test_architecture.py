"""The plan of the house, kept: who may import whom, how long files are, what they are called."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FOLDERS: dict[str, str] = PROJECT["tool"]["setuptools"]["package-dir"]

# Rooms from left to right: each may import itself and what stands before it.
ROOMS = [
    "odp.approximations",
    "odp.rewriter",
    "odp.passes",
    "odp.kernels",
    "odp.backends",
    "odp.evaluation",
    "odp.healing",
    "odp",
]
# The same within approximations: files and rooms from what knows nothing to what knows everything.
APPROXIMATIONS = [
    "errors",
    "native_output",
    "algebra",
    "interval",
    "straight_line_program",
    "notation",
    "expression",
    "tolerance",
    "error_analysis",
    "arithmetic",
    "target",
    "functions",
    "formula_expression",
    "forms",
    "measure",
    "proofs",
    "fits",
    "approximant",
    "longer_proof",
    "emitters",
    "schemes",
    "search",
    "fixed_point",
    "cache",
    "formula_approximant",
    "choose",
    "pareto",
    "minimax_approximant",
]
# Annotations, and methods that have themselves written out.
BACKWARDS = {
    ("straight_line_program", "expression"),
    ("notation", "expression"),
    ("notation", "emitters"),
    ("approximant", "emitters"),
    ("approximant", "fixed_point"),
}
FOREIGN_TO = {
    "odp.approximations": {"torch", "onnx", "onnx_ir", "onnxruntime", "onnxscript", "transformers"},
    "odp.rewriter": {"torch", "transformers"},
    "odp.passes": {"torch", "transformers", "onnx", "onnx_ir", "onnxruntime", "onnxscript"},
    "odp.evaluation": {"onnx", "onnx_ir", "onnxruntime", "onnxscript"},
    "odp.healing": {"onnx", "onnx_ir", "onnxruntime", "onnxscript"},
}
NAMES_THAT_SAY_NOTHING = {"utils", "util", "helpers", "helper", "misc", "common", "v2", "tools"}
MAXIMUM_LINES = 400


def room_of(module: str) -> str:
    """The room that a dotted name belongs to."""
    for room in [*ROOMS[:-1], "odp.kernels"]:
        if module == room or module.startswith(f"{room}."):
            return room
    return "odp"


def code_files() -> list[Path]:
    return sorted(
        file
        for folder in FOLDERS.values()
        for file in (ROOT / folder).rglob("*.py")
        if "__pycache__" not in file.parts
    )


def dotted(file: Path) -> str:
    """Name under which a file of the repository is imported."""
    for package, folder in FOLDERS.items():
        if file.is_relative_to(ROOT / folder):
            parts = file.relative_to(ROOT / folder).with_suffix("").parts
            return ".".join([package, *(part for part in parts if part != "__init__")])
    raise AssertionError(file)


def imports(file: Path) -> Iterator[tuple[int, str]]:
    """Every import of a file, those inside functions included."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: relative import"
            assert node.module is not None
            yield node.lineno, node.module
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


@pytest.mark.parametrize("file", code_files(), ids=lambda f: str(f.relative_to(ROOT)))
def test_a_file_imports_only_rooms_on_its_left(file: Path) -> None:
    room = room_of(dotted(file))
    if room == "odp.kernels":
        allowed = {"odp.kernels", "odp.approximations"}
    else:
        allowed = set(ROOMS[: ROOMS.index(room) + 1])
    # The torch.fx adapter is part of the rewriter, in files of its own that say so.
    allowed_here = {"torch"} if room == "odp.rewriter" and file.name.startswith("fx_") else set()
    for line, module in imports(file):
        top = module.split(".")[0]
        foreign = FOREIGN_TO.get(room, set()) - allowed_here
        assert top not in foreign, f"{file}:{line} imports {module}"
        # `from odp import approximations` would name the house where it means a room.
        if module == "odp" and room != "odp":
            raise AssertionError(f"{file}:{line} imports the public package from inside")
        if top == "odp" and module != "odp":
            assert room_of(module) in allowed, f"{file}:{line} imports {module}"


@pytest.mark.parametrize(
    "file",
    [file for file in code_files() if dotted(file).startswith("odp.approximations.")],
    ids=lambda f: str(f.relative_to(ROOT)),
)
def test_within_approximations_imports_have_one_direction(file: Path) -> None:
    own = dotted(file).split(".")[2]
    for line, module in imports(file):
        parts = module.split(".")
        if parts[:2] == ["odp", "approximations"] and len(parts) > 2:
            other = parts[2]
            downwards = APPROXIMATIONS.index(other) <= APPROXIMATIONS.index(own)
            assert downwards or (own, other) in BACKWARDS, f"{file}:{line} imports {module}"


@pytest.mark.parametrize("file", code_files(), ids=lambda f: str(f.relative_to(ROOT)))
def test_a_file_is_short_and_its_name_says_its_subject(file: Path) -> None:
    assert len(file.read_text().splitlines()) < MAXIMUM_LINES
    assert not set(file.stem.split("_")) & NAMES_THAT_SAY_NOTHING


def test_every_folder_of_code_is_a_declared_package() -> None:
    declared = set(PROJECT["tool"]["setuptools"]["packages"])
    found = {dotted(file) for file in code_files() if file.name == "__init__.py"}
    assert declared == found
    with_code = {dotted(file.parent / "__init__.py") for file in code_files()}
    assert with_code == found


def test_the_folders_of_the_plan_exist() -> None:
    rooms = ("approximations", "rewriter", "passes", "backends", "evaluation", "healing", "kernels")
    for folder in (*rooms, "src/odp"):
        assert (ROOT / folder / "__init__.py").is_file(), folder
