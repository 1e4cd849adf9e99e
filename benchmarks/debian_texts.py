"""Three English texts that Debian packages hold: fortunes, a handbook and a Bible.

apt-get install fortunes debian-handbook bible-kjv bible-kjv-text
"""

from __future__ import annotations

import html.parser
import re
import subprocess
from pathlib import Path

__all__ = ["debian_texts"]

FORTUNES = Path("/usr/share/games/fortunes")
HANDBOOK = Path("/usr/share/doc/debian-handbook/html/en-US")
BIBLE = Path("/usr/lib/bible.data")


class _Prose(html.parser.HTMLParser):
    """The paragraphs of a page of DocBook, which are `div` elements of class `para`."""

    def __init__(self) -> None:
        super().__init__()
        self.paragraphs: list[str] = []
        self._inside: list[bool] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "div":
            self._inside.append(dict(attrs).get("class") == "para")
            if self._inside[-1]:
                self.paragraphs.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == "div" and self._inside:
            self._inside.pop()

    def handle_data(self, data: str) -> None:
        if self._inside and self._inside[-1]:
            self.paragraphs[-1] += data


def debian_texts(folder: Path) -> dict[str, Path]:
    """Write the texts to files and return them by name.

    Raises:
        SystemExit: a package is missing.
    """
    if not (FORTUNES.is_dir() and HANDBOOK.is_dir() and BIBLE.is_file()):
        raise SystemExit(
            "apt-get install fortunes debian-handbook bible-kjv bible-kjv-text brings the texts"
        )
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        "fortunes": _fortunes(),
        "debian-handbook": _handbook(),
        "bible-kjv": _bible(),
    }
    files = {name: folder / f"{name}.txt" for name in texts}
    for name, text in texts.items():
        files[name].write_text(text, encoding="utf-8")
    return files


def _fortunes() -> str:
    # `science` is what the benchmarks calibrate on.
    wanted = ("wisdom", "literature", "people", "food", "work", "politics")
    pieces = [(FORTUNES / name).read_text(encoding="utf-8") for name in wanted]
    return "\n".join(pieces).replace("\n%\n", "\n\n")


def _handbook() -> str:
    paragraphs: list[str] = []
    for file in sorted(HANDBOOK.glob("*.html")):
        page = _Prose()
        page.feed(file.read_text(encoding="utf-8"))
        paragraphs += [" ".join(text.split()) for text in page.paragraphs]
    return "\n\n".join(text for text in paragraphs if len(text) > 80)


def _bible() -> str:
    done = subprocess.run(
        ["bible", "-f"],
        input="john1:1-john21:25\nromans1:1-romans16:27\nq\n",
        capture_output=True,
        text=True,
        check=True,
        cwd=BIBLE.parent,
    )
    verses = re.findall(r"^(?:John|Rom\w*)\d+:\d+ (.*)$", done.stdout, re.MULTILINE)
    return "\n".join(verse.strip() for verse in verses)
