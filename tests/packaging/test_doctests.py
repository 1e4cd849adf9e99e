"""The examples in docstrings run."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from collections.abc import Iterator

import pytest

import odp

ROOMS = (
    "approximations",
    "rewriter",
    "passes",
    "backends",
    "evaluation",
    "kernels",
    "cli",
    "output",
    "rewriting",
)


def modules() -> Iterator[str]:
    for room in ROOMS:
        found = importlib.import_module(f"odp.{room}")
        yield found.__name__
        if hasattr(found, "__path__"):
            for inner in pkgutil.walk_packages(found.__path__, f"{found.__name__}."):
                yield inner.name


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
