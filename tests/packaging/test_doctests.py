"""The examples in docstrings run."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import odp

PROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"


def modules() -> Iterator[str]:
    """Every module of every package that is installed: a new one is tested by being there."""
    for package in tomllib.loads(PROJECT.read_text())["tool"]["setuptools"]["packages"]:
        yield package
        for inner in pkgutil.iter_modules(importlib.import_module(package).__path__):
            if not inner.ispkg:
                yield f"{package}.{inner.name}"


@pytest.mark.parametrize("name", sorted(modules()))
def test_examples_of_a_module(name: str) -> None:
    outcome = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert outcome.failed == 0


def test_there_are_examples() -> None:
    finder = doctest.DocTestFinder(exclude_empty=True)
    counts = [
        len(test.examples)
        for name in modules()
        for test in finder.find(importlib.import_module(name))
    ]
    assert sum(counts) > 20
    assert odp.__doc__
