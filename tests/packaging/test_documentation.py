"""docs/approximation.md says what is true: its numbers are reached, its tables name what exists."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from odp.approximations import SCHEMES, TARGETS, approximate

PAGE = (Path(__file__).parents[2] / "docs" / "approximation.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| `(\S+ --domain .+?)` \| .+? \| (\S+) \|$", PAGE, re.MULTILINE)


def test_the_page_has_rows() -> None:
    assert len(ROWS) >= 10


@pytest.mark.parametrize("command, promised", ROWS, ids=[command for command, _ in ROWS])
def test_a_promised_error_is_reached_and_proven(command: str, promised: str) -> None:
    name, *words = shlex.split(command)
    options = dict(zip(words[::2], words[1::2], strict=True))
    low, high = (float(end) for end in options.pop("--domain").split(":"))
    arguments: dict[str, float | str] = {}
    if "--operations" in options:
        arguments["operations"] = float(options.pop("--operations"))
    if "--target" in options:
        arguments["target"] = options.pop("--target")
    assert not options
    answer = approximate(name, (low, high), **arguments)  # type: ignore[arg-type]
    assert answer.certified_error is not None
    assert answer.certified_error <= float(promised)


def test_the_formulas_of_the_page_are_read_and_proven() -> None:
    commands = re.findall(r"^    odp approximate (.+ --formula .+)$", PAGE, re.MULTILINE)
    assert len(commands) >= 2
    for command in commands:
        name, *words = shlex.split(command, comments=True)
        options = dict(zip(words[::2], words[1::2], strict=True))
        assert set(options) == {"--domain", "--formula"}
        low, high = (float(end) for end in options["--domain"].split(":"))
        answer = approximate(name, (low, high), formula=options["--formula"])
        assert answer.scheme == "formula" and answer.certified_error is not None


def section(title: str) -> str:
    return PAGE.split(f"## {title}\n")[1].split("\n## ")[0]


def test_every_scheme_and_target_is_on_the_page() -> None:
    schemes, targets = section("Schemes"), section("Targets")
    assert {name for name in SCHEMES if f"`{name}`" not in schemes} == set()
    assert {name for name in TARGETS if f"`{name}`" not in targets} == set()
    named = set(re.findall(r"`([a-z_]+)`", re.sub(r"`scheme=`", "", schemes)))
    assert named <= set(SCHEMES)
