"""Generated source: the same every time, readable, and written once whoever comes first."""

from __future__ import annotations

import ast
import importlib
import itertools
import os
import re
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from odp.approximations.errors import OdpError
from odp.kernels import generated_module
from odp.kernels.generated_module import generated_function, kernel_folder
from odp.kernels.kernel import Kernel, Layout, Output
from odp.kernels.term import REDUCTIONS, input_elements
from odp.kernels.triton_source import parameters, triton_kernel

from .compiled_kernels import KERNELS, kernel_named

LAYOUTS = [Layout(leading, looped) for leading in range(4) for looped in (False, True)]


def layouts(kernel: Kernel) -> list[Layout]:
    """Those that a launch may choose."""
    by_row = kernel.reduces or kernel.sums_columns
    return [
        layout
        for layout in LAYOUTS
        if (layout.leading > 0 or kernel.flat)
        and (not layout.looped or (by_row and not kernel.sums_columns and layout.leading > 0))
    ]


SOURCES = [
    pytest.param(name, layout, id=f"{name}-{layout.leading}{'-looped' if layout.looped else ''}")
    for name in KERNELS
    for layout in layouts(kernel_named(name))
]


@pytest.mark.parametrize("name, layout", SOURCES)
def test_source_is_sound_python(name: str, layout: Layout) -> None:
    kernel = kernel_named(name)
    source = triton_kernel(kernel, layout, "What it computes.")
    module = ast.parse(source)
    (function,) = [node for node in module.body if isinstance(node, ast.FunctionDef)]
    assert function.name == name
    assert ast.get_docstring(module, clean=True).startswith("What it computes.")
    given = [argument.arg for argument in function.args.args]
    assert given == [parameter.partition(":")[0] for parameter in parameters(kernel, layout)]
    assert len(set(given)) == len(given)
    used = {node.id for node in ast.walk(function) if isinstance(node, ast.Name)}
    # Extents and `rows` are there whether or not a layout needs them.
    missing = {n for n in given if not n.startswith(("extent", "rows", "DIVISION"))} - used
    assert not {n for n in missing if n.endswith("_ptr")}
    assigned = [
        target.id
        for node in ast.walk(function)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    ]
    assert set(assigned) <= used, "computed for nothing"
    imported = [
        alias.name
        for node in module.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]
    assert imported == sorted(imported)
    assert set(imported) <= used
    assert max(map(len, source.splitlines())) < 1000


def test_ruff_has_nothing_to_say_about_a_kernel(tmp_path: Path) -> None:
    for name in KERNELS:
        for layout in layouts(kernel_named(name)):
            path = tmp_path / f"{name}_{layout.leading}_{layout.looped}.py"
            path.write_text(triton_kernel(kernel_named(name), layout, "What it computes."))
    # Errors and unused names, not the length of lines.
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "E,F,W"]
    done = subprocess.run(
        [*command, "--ignore", "E501", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:]


def test_a_kernel_is_generated_the_same_every_time() -> None:
    """In a process with other hashes of strings, too: the name of the file has a digest."""
    program = (
        "import hashlib\n"
        "from tests.triton.all_sources import all_sources\n"
        "print(hashlib.sha256(all_sources().encode()).hexdigest())\n"
    )
    digests = set()
    for seed in ("0", "1"):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
        )
        digests.add(done.stdout)
    assert len(digests) == 1


def test_every_layout_of_a_kernel_is_another_source() -> None:
    for name in KERNELS:
        kernel = kernel_named(name)
        sources = [triton_kernel(kernel, layout) for layout in layouts(kernel)]
        assert len(set(sources)) == len(sources)


def test_the_folder_is_named_by_the_environment_or_in_the_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ODP_KERNELS", str(tmp_path))
    assert kernel_folder() == tmp_path
    monkeypatch.delenv("ODP_KERNELS")
    assert kernel_folder().name == "kernels"


SOURCE = '"""A module."""\n\n\ndef answer():\n    return {number}\n'
_numbers = itertools.count()


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """One that no other test has, with a folder of its own."""
    monkeypatch.setenv("ODP_KERNELS", str(tmp_path / "kernels"))
    return SOURCE.format(number=next(_numbers))


def written(folder: Path) -> list[Path]:
    return sorted((folder / "kernels").iterdir())


def test_a_source_is_a_file_named_by_its_digest(source: str, tmp_path: Path) -> None:
    function = generated_function(source, "answer")
    assert isinstance(function(), int)
    (path,) = written(tmp_path)
    assert re.fullmatch(r"answer_[0-9a-f]{16}\.py", path.name)
    assert path.read_text() == source
    assert function.__code__.co_filename == str(path)
    assert function.__module__ in sys.modules
    assert importlib.import_module(function.__module__).answer is function


def test_a_file_that_is_there_is_not_written_again(source: str, tmp_path: Path) -> None:
    generated_function(source, "answer")
    (path,) = written(tmp_path)
    before = path.stat().st_mtime_ns, path.stat().st_ino
    generated_function.cache_clear()
    generated_function(source, "answer")
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == before


def test_a_damaged_file_is_written_again(source: str, tmp_path: Path) -> None:
    generated_function(source, "answer")
    (path,) = written(tmp_path)
    path.write_text("half of a mod")
    generated_function.cache_clear()
    assert isinstance(generated_function(source, "answer")(), int)
    assert written(tmp_path) == [path]
    assert path.read_text() == source


def test_an_interrupted_write_leaves_no_half_of_a_file(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: Path, target: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            generated_function(source, "answer")
    assert not [path for path in written(tmp_path) if path.suffix == ".py"]
    assert isinstance(generated_function(source, "answer")(), int)


def test_a_folder_that_cannot_be_made_is_an_error_of_one_line(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    occupied = tmp_path / "occupied"
    occupied.write_text("a file")
    monkeypatch.setenv("ODP_KERNELS", str(occupied / "kernels"))
    with pytest.raises(OdpError) as raised:
        generated_function(source, "answer")
    assert "\n" not in str(raised.value)
    assert "set ODP_KERNELS to a folder that can be written to" in str(raised.value)
    assert str(occupied / "kernels") in str(raised.value)


def test_a_folder_that_cannot_be_written_to_is_an_error_of_one_line(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*arguments: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(generated_module.tempfile, "mkstemp", refused)
    with pytest.raises(OdpError, match=r"cannot write the kernel .*Permission denied.*ODP_KERNELS"):
        generated_function(source, "answer")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_with_the_kernel_in_it_will_do(source: str, tmp_path: Path) -> None:
    generated_function(source, "answer")
    (tmp_path / "kernels").chmod(stat.S_IRUSR | stat.S_IXUSR)
    generated_function.cache_clear()
    try:
        assert isinstance(generated_function(source, "answer")(), int)
    finally:
        (tmp_path / "kernels").chmod(stat.S_IRWXU)


def test_two_processes_at_once_do_not_get_in_each_others_way(tmp_path: Path) -> None:
    program = (
        "import sys, time\n"
        "from odp.kernels.generated_module import generated_function\n"
        "while time.time() < float(sys.argv[1]): pass\n"
        "for number in range(200):\n"
        "    source = f'def answer():\\n    return {number}\\n' + '#' * 50000\n"
        "    assert generated_function(source, 'answer')() == number\n"
    )
    start = str(time.time() + 3)
    environment = {**os.environ, "ODP_KERNELS": str(tmp_path / "kernels")}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", program, start],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for process in running:
        _, errors = process.communicate(timeout=100)
        assert process.returncode == 0, errors
    files = written(tmp_path)
    assert len([path for path in files if path.suffix == ".py"]) == 200
    assert not [path for path in files if path.suffix == ".tmp"]


def test_a_result_that_is_the_same_everywhere_has_the_shape_of_a_block() -> None:
    x = input_elements("x")
    kernel = Kernel("constants", (Output("y", x * 0 + 2), Output("z", x)))
    source = triton_kernel(kernel, Layout(0))
    assert "tl.full([BLOCK], 2.0, tl.float32)" in source
    assert not any(term.op in REDUCTIONS for term in kernel.terms)
