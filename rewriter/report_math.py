r"""LaTeX formulas as MathML, which browsers draw without any script or font from the network.

Knows the LaTeX that sympy writes for rational expressions: numbers, symbols, `\frac`, powers,
indices, `\sqrt`, `\left` and `\right` brackets, `\cdot`.
"""

# ruff: noqa: RUF001 - mathematical characters are the point of this file

from __future__ import annotations

import re

from markupsafe import Markup, escape

__all__ = ["latex_to_mathml"]

TOKEN = re.compile(
    r"\s+|(?P<command>\\[a-zA-Z]+|\\[,;:!{}|])|(?P<number>\d+(?:\.\d+)?|\.\d+)|(?P<sign>.)",
    re.DOTALL,
)
OPERATORS = {
    r"\cdot": "⋅", r"\times": "×", r"\le": "≤", r"\leq": "≤", r"\ge": "≥", r"\geq": "≥",
    r"\approx": "≈", r"\pm": "±", r"\to": "→", r"\circ": "∘", r"\ldots": "…", r"\dots": "…",
    "+": "+", "-": "−", "*": "⋅", "/": "/", "=": "=", "<": "<", ">": ">", ",": ",", "|": "|",
    "(": "(", ")": ")", "[": "[", "]": "]", r"\{": "{", r"\}": "}", r"\|": "‖",
}  # fmt: skip
LETTERS = {
    r"\alpha": "α", r"\beta": "β", r"\gamma": "γ", r"\delta": "δ", r"\epsilon": "ε",
    r"\varepsilon": "ε", r"\theta": "θ", r"\lambda": "λ", r"\mu": "μ", r"\pi": "π",
    r"\sigma": "σ", r"\phi": "φ", r"\varphi": "φ", r"\omega": "ω", r"\infty": "∞",
}  # fmt: skip
NAMES = {r"\exp", r"\log", r"\ln", r"\sin", r"\cos", r"\tan", r"\tanh", r"\max", r"\min"}
SPACES = {r"\,", r"\;", r"\:", r"\!", r"\quad", r"\qquad", r"\displaystyle", r"\limits"}
TEXT_COMMANDS = {r"\operatorname", r"\mathrm", r"\text", r"\mathit"}


class _UnknownLatexError(ValueError):
    """The formula uses LaTeX that this file does not know."""


def latex_to_mathml(latex: str) -> Markup | None:
    r"""A formula as a MathML element.

    Args:
        latex: the formula, without dollar signs.

    Returns:
        A `<math>` element whose alternative text is the LaTeX, or None if the formula uses LaTeX
        that is not known here; the caller then shows the source.

    >>> print(latex_to_mathml(r"\frac{x}{2}"))
    <math display="block" alttext="\frac{x}{2}"><mfrac><mi>x</mi><mn>2</mn></mfrac></math>
    >>> latex_to_mathml(r"\begin{array}") is None
    True
    """
    tokens = [match.group() for match in TOKEN.finditer(latex) if not match.group().isspace()]
    parser = _Parser(tokens)
    try:
        body = parser.sequence(end=None)
    except (_UnknownLatexError, RecursionError):
        return None
    return Markup('<math display="block" alttext="{}">{}</math>').format(latex, body)


class _Parser:
    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens
        self.position = 0

    def sequence(self, end: str | None) -> Markup:
        """Everything up to the token `end`, which is consumed; None is the end of the formula."""
        items: list[Markup] = []
        while True:
            if self.position == len(self.tokens):
                if end is not None:
                    raise _UnknownLatexError(f"missing {end}")
                break
            if self.tokens[self.position] == end:
                self.position += 1
                break
            item = self.atom()
            if item:
                items.append(self.scripts(item))
        if len(items) == 1:
            return items[0]
        return Markup("<mrow>{}</mrow>").format(Markup("").join(items))

    def scripts(self, base: Markup) -> Markup:
        """The base with its powers and indices."""
        while self.position < len(self.tokens) and self.tokens[self.position] in "^_":
            element = "msup" if self.tokens[self.position] == "^" else "msub"
            self.position += 1
            base = Markup("<{0}>{1}{2}</{0}>").format(Markup(element), base, self.atom())
        return base

    def take(self) -> str:
        if self.position == len(self.tokens):
            raise _UnknownLatexError("unexpected end")
        self.position += 1
        return self.tokens[self.position - 1]

    def atom(self) -> Markup:
        """One number, symbol, group or command with its arguments; empty for a space."""
        token = self.take()
        if token == "{":
            return self.sequence(end="}")
        if token[0].isdigit() or (token[0] == "." and len(token) > 1):
            return Markup("<mn>{}</mn>").format(token)
        if token in LETTERS or (len(token) == 1 and token.isalpha()):
            return Markup("<mi>{}</mi>").format(LETTERS.get(token, token))
        if token in OPERATORS:
            return Markup("<mo>{}</mo>").format(OPERATORS[token])
        if token in NAMES:
            return Markup("<mi>{}</mi>").format(token[1:])
        if token in SPACES:
            return Markup("")
        return self.command(token)

    def command(self, token: str) -> Markup:
        if token in (r"\frac", r"\dfrac", r"\tfrac"):
            return Markup("<mfrac>{}{}</mfrac>").format(self.atom(), self.atom())
        if token == r"\sqrt" and self.tokens[self.position : self.position + 1] != ["["]:
            return Markup("<msqrt>{}</msqrt>").format(self.atom())
        if token == r"\left":
            return self.brackets()
        if token in TEXT_COMMANDS and self.take() == "{":
            letters = []
            while (letter := self.take()) != "}":
                letters.append(letter.lstrip("\\"))
            return Markup("<mi>{}</mi>").format("".join(letters))
        raise _UnknownLatexError(escape(token))

    def brackets(self) -> Markup:
        opening = self.delimiter()
        body = self.sequence(end=r"\right")
        return Markup("<mrow>{}{}{}</mrow>").format(opening, body, self.delimiter())

    def delimiter(self) -> Markup:
        token = self.take()
        if token == ".":
            return Markup("")
        if token not in OPERATORS:
            raise _UnknownLatexError(token)
        return Markup('<mo fence="true" stretchy="true">{}</mo>').format(OPERATORS[token])
