"""Windows: every token is scored once, from as many tokens before it as there can be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from odp.approximations.errors import OdpError
from odp.evaluation.windows import Window, sliding_windows


@st.composite
def plans(draw: st.DrawFn) -> tuple[int, int, int, bool]:
    context = draw(st.integers(2, 40))
    stride = draw(st.integers(1, context - 1))
    begin_token = draw(st.booleans())
    tokens = draw(st.integers(context - begin_token, 300))
    return tokens, context, stride, begin_token


@given(plans())
def test_every_token_is_scored_once_and_in_order(plan: tuple[int, int, int, bool]) -> None:
    tokens, context, stride, begin_token = plan
    windows = sliding_windows(tokens, context, stride, begin_token=begin_token)
    scored = [token for w in windows for token in range(w.first_scored, w.end)]
    # Without a begin token nothing stands before the first token.
    assert scored == list(range(0 if begin_token else 1, tokens))
    assert all(w.scored == stride for w in windows[1:-1])


@given(plans())
def test_a_window_fits_the_model_and_gives_every_token_its_context(
    plan: tuple[int, int, int, bool],
) -> None:
    tokens, context, stride, begin_token = plan
    for index, window in enumerate(sliding_windows(*plan[:3], begin_token=begin_token)):
        length = window.end - window.begin + begin_token
        assert length <= context
        assert 0 <= window.begin < window.end <= tokens
        assert window.begin == index * stride
        before = window.first_scored - window.begin + begin_token
        assert before >= (1 if index == 0 else context - stride)


@given(plans())
def test_a_row_predicts_the_token_after_it(plan: tuple[int, int, int, bool]) -> None:
    tokens, context, stride, begin_token = plan
    for window in sliding_windows(tokens, context, stride, begin_token=begin_token):
        read = [-1] * begin_token + list(range(window.begin, window.end))
        following = [read[row + 1] for row in range(len(read))[window.rows]]
        assert following == list(range(window.first_scored, window.end))


def hugging_face(tokens: int, context: int, stride: int) -> list[tuple[int, int, int]]:
    """The loop of the documentation of transformers: begin, tokens to score, end."""
    found, previous_end = [], 0
    for begin in range(0, tokens, stride):
        end = min(begin + context, tokens)
        found.append((begin, end - previous_end, end))
        previous_end = end
        if end == tokens:
            break
    return found


@given(plans())
def test_the_windows_are_those_of_the_documentation(plan: tuple[int, int, int, bool]) -> None:
    tokens, context, stride, _ = plan
    windows = sliding_windows(tokens + 1, context, stride, begin_token=False)
    # There the first token of a text counts as a target, but its loss is shifted away.
    ours = [(w.begin, w.scored + (index == 0), w.end) for index, w in enumerate(windows)]
    assert ours == hugging_face(tokens + 1, context, stride)


def test_rows_of_one_window() -> None:
    assert Window(begin=4, first_scored=6, end=8, begin_token=False).rows == slice(1, 3)
    assert Window(begin=4, first_scored=6, end=8, begin_token=True).rows == slice(2, 4)


@pytest.mark.parametrize(
    ("context", "stride", "message"),
    [
        (1, 1, "the context must be at least 2 tokens, not 1"),
        (8, 0, "the stride must be between 1 and 7, the context less 1, not 0"),
        (8, 8, "the stride must be between 1 and 7, the context less 1, not 8"),
    ],
)
def test_windows_that_cannot_be(context: int, stride: int, message: str) -> None:
    with pytest.raises(OdpError) as caught:
        sliding_windows(100, context, stride, begin_token=False)
    assert str(caught.value) == message
