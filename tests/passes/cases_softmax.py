"""Spellings of softmax and log-softmax."""

from __future__ import annotations

from .cases import Case, Shape

__all__ = ["CASES"]

_RANK_4: dict[str, Shape] = {"x": (2, 3, 4, 5)}
_SHIFTED = "m = ReduceMax<axes = [-1]>(x) s = Sub(x, m) e = Exp(s)"
_SUM = "t = ReduceSum<axes = [-1]>(e)"
_SUM_13 = "last = Constant<value_ints = [-1]>() t = ReduceSum(e, last)"
_MAX_18 = "last = Constant<value_ints = [-1]>() m = ReduceMax(x, last) s = Sub(x, m) e = Exp(s)"


def _softmax(
    name: str, body: str, pattern: str = "softmax", opset: int = 17, rank_4: bool = False
) -> Case:
    inputs: dict[str, Shape] = _RANK_4 if rank_4 else {"x": (2, 6, 16)}
    return Case("softmax", name, body, {pattern: 1}, inputs=inputs, opset=opset)


def _log(name: str, body: str, pattern: str, opset: int = 17, rank_4: bool = False) -> Case:
    inputs: dict[str, Shape] = _RANK_4 if rank_4 else {"x": (2, 6, 16)}
    return Case("log_softmax", name, body, {pattern: 1}, inputs=inputs, opset=opset)


CASES: list[Case] = [
    _softmax("default_axis", "y = Softmax(x)"),
    _softmax("middle_axis", "y = Softmax<axis = 1>(x)", rank_4=True),
    _softmax("negative_axis", "y = Softmax<axis = -2>(x)", rank_4=True, opset=13),
    _softmax("flattening_default", "y = Softmax(x)", opset=12, rank_4=True),
    _softmax("flattening_axis_2", "y = Softmax<axis = 2>(x)", opset=9, rank_4=True),
    _softmax("flattening_negative", "y = Softmax<axis = -1>(x)", opset=11, rank_4=True),
    _softmax("spelled_out", f"{_SHIFTED} {_SUM} y = Div(e, t)", "exp_of_shifted", opset=11),
    _softmax("spelled_out_13", f"{_SHIFTED} {_SUM_13} y = Div(e, t)", "exp_of_shifted"),
    _softmax(
        "spelled_out_18", f"{_MAX_18} t = ReduceSum(e, last) y = Div(e, t)", "exp_of_shifted", 18
    ),
    _softmax(
        "spelled_out_reciprocal",
        f"{_SHIFTED} {_SUM} i = Reciprocal(t) y = Mul(e, i)",
        "exp_of_shifted",
        opset=12,
    ),
    _softmax("without_maximum", f"e = Exp(x) {_SUM} y = Div(e, t)", "exp_over_sum", opset=11),
    _softmax("without_maximum_13", f"e = Exp(x) {_SUM_13} y = Div(e, t)", "exp_over_sum"),
    _softmax(
        "without_maximum_middle_axis",
        "e = Exp(x) t = ReduceSum<axes = [1]>(e) y = Div(e, t)",
        "exp_over_sum",
        opset=11,
        rank_4=True,
    ),
    _log("default_axis", "y = LogSoftmax(x)", "log_softmax"),
    _log("middle_axis", "y = LogSoftmax<axis = 1>(x)", "log_softmax", rank_4=True),
    _log("flattening", "y = LogSoftmax(x)", "log_softmax", opset=11, rank_4=True),
    _log("log_of_softmax", "s = Softmax(x) y = Log(s)", "log_softmax"),
    _log(
        "log_of_flattening_softmax",
        "s = Softmax<axis = 2>(x) y = Log(s)",
        "log_softmax",
        opset=12,
        rank_4=True,
    ),
    _log("log_sum_exp", "y = ReduceLogSumExp<axes = [-1]>(x)", "log_sum_exp"),
    _log("log_sum_exp_everything", "y = ReduceLogSumExp(x)", "log_sum_exp"),
    _log(
        "log_sum_exp_18",
        "k = Constant<value_ints = [1, 2]>() y = ReduceLogSumExp<keepdims = 0>(x, k)",
        "log_sum_exp",
        opset=18,
    ),
]
