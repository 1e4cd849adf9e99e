"""The answers of several models to one prompt, beside each other or below each other."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from odp.evaluation.record import Answer, Generation
from odp.rewriter.table_style import plain_table

__all__ = ["answers_table"]

# Characters of a line of text that is still read with ease.
_COLUMN = 30


def answers_table(generation: Generation, console: Console) -> Table:
    """The answers, with a mark where each begins to differ from the original's.

    Args:
        generation: prompt and answers, the original's first.
        console: where it will be printed; a wide one has the answers in columns.
    """
    is_wide = console.width >= len(generation.answers) * (_COLUMN + 3)
    table = (_columns if is_wide else _rows)(generation, console)
    table.title = Text(generation.prompt, style="bold")
    return table


def _columns(generation: Generation, console: Console) -> Table:
    table = plain_table()
    # Without a width Rich makes columns as wide as their text, whichever it is.
    width = console.width // len(generation.answers) - 3
    shown = _shown(generation, console)
    for name, state, _ in shown:
        header = Text.assemble(name, ": ", state) if state else Text(name)
        table.add_column(header, overflow="fold", width=width)
    table.add_row(*(text for _, _, text in shown))
    return table


def _rows(generation: Generation, console: Console) -> Table:
    table = plain_table()
    table.show_header = False
    table.add_column(style="dim", overflow="fold", min_width=8)
    table.add_column(overflow="fold", ratio=1)
    for name, state, text in _shown(generation, console):
        if not state:
            table.add_row(Text(name), text)
        elif generation.answers[name].is_identical:
            table.add_row(Text(name), state)
        else:
            table.add_row(Text(name), Text.assemble(state, "\n", text))
    return table


def _shown(generation: Generation, console: Console) -> list[tuple[str, Text, Text]]:
    """Names of models, where their answers differ (empty for the original), and the answers."""
    mark = ">>" if console.options.ascii_only else "»"
    (first, reference), *others = generation.answers.items()
    found = [(first, Text(), Text(_printable(reference.text)))]
    for name, answer in others:
        if answer.first_difference is None:
            state = Text(f"identical, {_tokens(len(answer.tokens))}", style="green")
        else:
            state = Text(f"differs from new token {answer.first_difference} on", style="yellow")
        found.append((name, state, _marked(reference, answer, mark)))
    return found


def _marked(reference: Answer, answer: Answer, mark: str) -> Text:
    """The text, with a mark before the first word that is not the original's."""
    expected, text = _printable(reference.text), _printable(answer.text)
    if answer.is_identical:
        return Text(text, style="dim")
    shorter = min(len(expected), len(text))
    place = next((i for i in range(shorter) if expected[i] != text[i]), shorter)
    # To the beginning of the word: halves of two words read alike by chance.
    while 0 < place < len(text) and not text[place - 1].isspace():
        place -= 1
    return Text.assemble(text[:place], (mark + text[place:], "yellow"))


def _printable(text: str) -> str:
    """The text without what a terminal would obey: a model may write anything."""
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)


def _tokens(count: int) -> str:
    return "1 token" if count == 1 else f"{count} tokens"
