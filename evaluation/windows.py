"""Windows that slide over a text, so that a model with a short memory scores a long text.

Source: "Perplexity of fixed-length models" in the documentation of Hugging Face transformers
(https://huggingface.co/docs/transformers/perplexity).  Windows of `context` tokens advance by
`stride`.  The first scores every token that has one before it; each later one only those that no
window before it scored, so every token is scored once, and after the first window with at least
`context - stride` tokens before it.
"""

from __future__ import annotations

from dataclasses import dataclass

from odp.approximations.errors import OdpError

__all__ = ["Window", "check_windows", "sliding_windows", "tokens_per_window"]


@dataclass(frozen=True)
class Window:
    """One window; its numbers are indices into the tokens of the text.

    Attributes:
        begin: first token in the window, not counting a begin token before it.
        first_scored: first token that this window scores.
        end: one past its last token, which is also the last that it scores.
        begin_token: whether the input of the model starts with a begin token.
    """

    begin: int
    first_scored: int
    end: int
    begin_token: bool

    @property
    def scored(self) -> int:
        """Number of tokens that this window scores."""
        return self.end - self.first_scored

    @property
    def rows(self) -> slice:
        """The positions of the model's input that predict the scored tokens, in their order."""
        first = self.first_scored - self.begin - 1 + self.begin_token
        return slice(first, first + self.scored)


def tokens_per_window(context: int, begin_token: bool) -> int:
    """Number of tokens of the text in one full window."""
    return context - begin_token


def check_windows(context: int, stride: int) -> None:
    """Raise if windows cannot be made so.

    Raises:
        OdpError: `context` is less than 2, or `stride` not between 1 and `context - 1`.
    """
    if context < 2:
        raise OdpError(f"the context must be at least 2 tokens, not {context}")
    if not 1 <= stride < context:
        raise OdpError(
            f"the stride must be between 1 and {context - 1}, the context less 1, not {stride}"
        )


def sliding_windows(tokens: int, context: int, stride: int, *, begin_token: bool) -> list[Window]:
    """Cut a text into windows.

    Args:
        tokens: number of tokens of the text.
        context: number of tokens that a model sees at once, the begin token included.
        stride: number of tokens by which windows advance, 1 to `context - 1`: a token is scored
            from at least one before it.
        begin_token: whether every window starts with a begin token.  Then the first token of the
            text is scored as well.

    Raises:
        OdpError: `context` or `stride` is out of range.

    >>> [(w.begin, w.first_scored, w.end) for w in sliding_windows(10, 4, 2, begin_token=False)]
    [(0, 1, 4), (2, 4, 6), (4, 6, 8), (6, 8, 10)]
    """
    check_windows(context, stride)
    body = tokens_per_window(context, begin_token)
    windows: list[Window] = []
    first_scored = 0 if begin_token else 1
    begin = 0
    while first_scored < tokens:
        end = min(begin + body, tokens)
        windows.append(Window(begin, first_scored, end, begin_token))
        first_scored = end
        begin += stride
    return windows
