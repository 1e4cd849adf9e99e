"""What a user installs: one import package, its data files, its two commands."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
ROOMS = ("approximations", "rewriter", "passes", "backends", "evaluation", "healing", "kernels")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tree, so that no build folder appears in the repository."""
    folder = tmp_path_factory.mktemp("tree")
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for room in (*ROOMS, "src"):
        shutil.copytree(ROOT / room, folder / room, ignore=ignore)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture(scope="module")
def wheel(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    command += ["--no-index", "--quiet", "-w", str(folder), str(tree)]
    built = subprocess.run(command, check=False, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    (path,) = folder.glob("odp_rewrite-*.whl")
    return zipfile.ZipFile(path)


def test_the_only_top_level_entries_are_odp_and_the_metadata(wheel: zipfile.ZipFile) -> None:
    top = {name.split("/")[0] for name in wheel.namelist()}
    version = PROJECT["project"]["version"]
    assert top == {"odp", f"odp_rewrite-{version}.dist-info"}


def test_every_module_of_the_tree_is_in_the_wheel(tree: Path, wheel: zipfile.ZipFile) -> None:
    expected = set()
    for package, folder in PROJECT["tool"]["setuptools"]["package-dir"].items():
        for file in (tree / folder).rglob("*.py"):
            if "build" in file.relative_to(tree).parts:
                continue  # setuptools builds in the tree
            inner = file.relative_to(tree / folder).as_posix()
            expected.add(f"{package.replace('.', '/')}/{inner}")
    assert expected <= set(wheel.namelist())


def test_data_files_are_in_the_wheel(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    assert {"odp/py.typed", "odp/rewriter/report.html.jinja"} <= names
    # Nothing else: no tests, no caches, no weights.
    assert {Path(n).suffix for n in names if n.startswith("odp/")} == {".py", ".typed", ".jinja"}


def test_both_commands_and_the_license_are_declared(wheel: zipfile.ZipFile) -> None:
    metadata = next(n for n in wheel.namelist() if n.endswith("dist-info/entry_points.txt"))
    text = wheel.read(metadata).decode()
    assert "odp-rewrite = odp.cli:rewrite_main" in text
    assert "odp = odp.cli:main" in text
    assert any(name.endswith("/LICENSE") for name in wheel.namelist())
