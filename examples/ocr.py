"""A text recogniser, before and after its transcendental functions are gone.

The model is the PP-OCRv4 recogniser in the PyPI package rapidocr-onnxruntime: convolutions, two
attention blocks with LayerNorm spelled out as Pow, Sqrt and Div, swish, and a softmax over 6625
characters.  Lines of text are rendered with the font that Pillow carries, so the right answer is
known by construction.

    python examples/ocr.py export ocr.onnx
    python examples/ocr.py data ocr.npz
    odp-rewrite ocr.onnx --passes all --calibrate ocr.npz --opset 12 -o rational.onnx
    python examples/ocr.py read ocr.onnx rational.onnx

The last command lets both models read lines that the calibration data never shows, and ends with
exit code 1 when a character differs.

Needs the packages rapidocr-onnxruntime and pillow.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.table import Table

RECOGNISER = "models/ch_PP-OCRv4_rec_infer.onnx"
HEIGHT, WIDTH = 48, 640
FONT_SIZE = 32
MARGIN = 8

LINES_TO_READ = (
    "The quick brown fox jumps over",
    "Invoice 2024-0917: EUR 1,250.00",
    "Rational functions only: + - * /",
    "Opset 12, static shapes, no Exp",
    "Payment is due within 30 days",
    "Sphinx of black quartz, judge my vow",
    "Room 404 is on the fourth floor",
    "Error below 0.001 on every site",
    "Pack my box with five dozen jugs",
    "Total weight: 73.5 kg (gross)",
    "Please keep this ticket safe",
    "Gate B17 closes at 18:45",
    "Order #58213 has been shipped",
    "Temperature 21.4 C, humidity 56%",
    "Caution: wet floor",
    "Thank you for your visit!",
)

LINES_TO_CALIBRATE = (
    "How vexingly quick daft zebras jump",
    "Flight LH 1138 departs at 07:20",
    "Account balance: USD 9,867.54",
    "Open daily from 8 am to 6 pm",
    "Jackdaws love my big sphinx",
    "Serial number XK-2209-77 / rev 3",
    "Keep out of reach of children",
    "12 + 30 = 42, and 7 * 6 too",
    "Platform 9: trains to the coast",
    "Net price 15.90, tax 19%",
    "Do not disturb!",
    "Was it a car or a cat I saw?",
    "Printed on recycled paper",
    "Chapter 11 - The long way home",
    "Call 555-0164 for assistance",
    "Best before: 31.12.2026",
)


def recogniser() -> Path:
    """Return the model file inside the package, which is found without being imported."""
    package = importlib.util.find_spec("rapidocr_onnxruntime")
    if package is None or package.origin is None:
        raise click.ClickException(
            'the model is not installed; run: pip install "rapidocr-onnxruntime==1.4.4"'
        )
    return Path(package.origin).parent / RECOGNISER


def export_model(path: Path) -> None:
    """Write the recogniser with its input fixed to (1, 3, HEIGHT, WIDTH).

    Only the declared shape changes; the nodes that compute with shapes stay as they are.
    """
    import onnx
    from onnxruntime.tools.onnx_model_utils import make_input_shape_fixed

    model = onnx.load(recogniser())
    make_input_shape_fixed(model.graph, model.graph.input[0].name, [1, 3, HEIGHT, WIDTH])
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)


def render(line: str) -> NDArray[np.float32]:
    """Render one line of text as the recogniser wants it.

    Args:
        line: text of about 36 characters at most; what does not fit is cut off.

    Returns:
        float32 of shape (1, 3, HEIGHT, WIDTH) in [-1, 1], black on white.  Right of the text stands
        0 (grey), the padding that the model was trained with: on white it reads ghosts.
    """
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(size=FONT_SIZE)
    image = Image.new("L", (WIDTH, HEIGHT), 255)
    draw = ImageDraw.Draw(image)
    draw.text((MARGIN, HEIGHT / 2), line, fill=0, font=font, anchor="lm")
    pixels = np.asarray(image, np.float32) / 127.5 - 1
    pixels[:, int(draw.textlength(line, font=font)) + 2 * MARGIN :] = 0
    return np.broadcast_to(pixels, (1, 3, HEIGHT, WIDTH)).copy()


def open_session(path: Path) -> Any:
    """Open a recogniser in ONNX Runtime."""
    import onnxruntime

    try:
        return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's error classes share no public base
        raise click.ClickException(f"ONNX Runtime cannot load {path}: {error}") from None


def vocabulary(path: Path | None = None) -> list[str]:
    """Return the character of each class: blank, the characters of the metadata, space.

    Args:
        path: recogniser to read the metadata of; the one in the package when None, so that a
            rewritten model need not carry the list.
    """
    metadata = open_session(path or recogniser()).get_modelmeta().custom_metadata_map
    return ["", *metadata["character"].splitlines(), " "]


def decode(scores: NDArray[np.float32], characters: list[str]) -> str:
    """Decode greedily by connectionist temporal classification (Graves et al., 2006).

    The best class of each step is taken, repeats are merged and blanks (class 0) dropped; space at
    both ends is removed.

    Args:
        scores: shape (steps, classes).
        characters: text of each class, from `vocabulary`.

    >>> decode(np.eye(3, dtype=np.float32)[[1, 1, 0, 1, 2, 0]], ["", "a", "b"])
    'aab'
    """
    best = scores.argmax(axis=-1)
    starts = np.flatnonzero(np.diff(best, prepend=-1))
    return "".join(characters[index] for index in best[starts]).strip()


def read_line(session: Any, line: str, characters: list[str]) -> str:
    """Render a line and let a model read it."""
    (scores,) = session.run(None, {session.get_inputs()[0].name: render(line)})
    return decode(scores[0], characters)


def edit_distance(first: str, second: str) -> int:
    """Count the insertions, deletions and substitutions between two strings (Levenshtein).

    >>> edit_distance("kitten", "sitting")
    3
    """
    row = list(range(len(second) + 1))
    for i, a in enumerate(first, 1):
        previous, row = row, [i]
        for j, b in enumerate(second, 1):
            row.append(min(previous[j] + 1, row[-1] + 1, previous[j - 1] + (a != b)))
    return row[-1]


def character_error_rate(truth: list[str], read: list[str]) -> float:
    """Return the edit distance summed over lines, divided by the number of characters."""
    errors = sum(edit_distance(a, b) for a, b in zip(truth, read, strict=True))
    return errors / sum(map(len, truth))


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Copy the recogniser, write calibration data, and let two ONNX files read rendered text."""


@main.command("export")
@click.argument("path", type=click.Path(dir_okay=False, path_type=Path))
def export_command(path: Path) -> None:
    """Write the recogniser to PATH with a static input shape."""
    export_model(path)
    Console(stderr=True).print(f"wrote {path}: 1x3x{HEIGHT}x{WIDTH}", highlight=False)


@main.command("data")
@click.argument("path", type=click.Path(dir_okay=False, path_type=Path))
def data_command(path: Path) -> None:
    """Write calibration data to PATH (.npz): rendered lines of text."""
    lines = np.stack([render(line) for line in LINES_TO_CALIBRATE])
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        np.savez(file, x=lines)
    Console(stderr=True).print(f"wrote {path}: x {lines.shape}", highlight=False)


@main.command("read")
@click.argument("before", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("after", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the lines as JSON.")
def read_command(before: Path, after: Path, as_json: bool) -> None:
    """Let BEFORE and AFTER (ONNX files) read the same lines.

    Exit code 1 when a character differs.
    """
    truth, characters = list(LINES_TO_READ), vocabulary()
    readings = []
    for path in (before, after):
        session = open_session(path)
        readings.append([read_line(session, line, characters) for line in truth])
    rates = [character_error_rate(truth, reading) for reading in readings]
    if as_json:
        result = {"text": truth, "before": readings[0], "after": readings[1], "error_rates": rates}
        click.echo(json.dumps(result, indent=2))
    else:
        table = Table(title="Rendered lines, read by both models", title_justify="left")
        table.add_column("before")
        table.add_column("after")
        for old, new in zip(*readings, strict=True):
            table.add_row(escape(old), "[green]the same" if old == new else f"[red]{escape(new)}")
        console = Console()
        console.print(table)
        console.print(
            f"{len(truth)} lines: character error rate {rates[0]:.2%} before, {rates[1]:.2%} after",
            highlight=False,
        )
    sys.exit(0 if readings[0] == readings[1] else 1)


if __name__ == "__main__":
    main()
