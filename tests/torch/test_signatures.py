"""A rewritten module is called as the original is, and returns what the original returns."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from torch.utils import _pytree as pytree

from odp.approximations.errors import OdpError

from .modules import Keywords, Nested, Optional, Star, numbers
from .rewriting import STRUCTURES, assert_within
from .rewritten import Pair, classifier, rewrite

X, Y = numbers(3, 8), numbers(3, 8, seed=1)
both = pytest.mark.parametrize("structure", STRUCTURES)


def check(pair: Pair, /, *args: Any, **kwargs: Any) -> None:
    """Same structure, same numbers within the declared errors, same things that are no tensors."""
    actual = pair.model(*args, **kwargs)
    expected = pair.original(*args, **kwargs)
    assert pytree.tree_structure(actual) == pytree.tree_structure(expected)
    assert type(actual) is type(expected)
    assert_within(actual, pair.bounds(*args, **kwargs))


@both
def test_one_tensor(structure: str) -> None:
    pair = classifier(structure)
    check(pair, *pair.inputs.args)
    check(pair, x=pair.inputs.args[0])


@both
def test_results_in_containers_and_defaults(structure: str) -> None:
    pair = rewrite(Optional(), X, structure=structure)
    check(pair, X)
    check(pair, x=X)
    # Defaults may be said.
    check(pair, X, None, 2, shifted=False)
    result = pair.model(X)
    assert result["rest"][1][1:] == [None, 7]


@both
def test_options_of_the_example(structure: str) -> None:
    pair = rewrite(Optional(), X, Y, 3, structure=structure, shifted=True)
    check(pair, X, Y, 3, shifted=True)
    check(pair, shifted=True, scale=Y, power=3, x=X)


@both
def test_any_number_of_tensors(structure: str) -> None:
    pair = rewrite(Star(), X, Y, X + 1.0, structure=structure)
    check(pair, X, Y, X + 1.0)
    check(pair, Y, X, Y, factor=2.0)


@both
def test_keywords_of_any_name(structure: str) -> None:
    pair = rewrite(Keywords(), structure=structure, x=X, here=Y, there=X)
    check(pair, x=X, here=Y, there=X)
    check(pair, x=Y, here=X, there=Y)


@both
def test_nested_inputs(structure: str) -> None:
    pair = rewrite(Nested(), (X, Y), {"a": [X, Y]}, structure=structure)
    check(pair, (X, Y), {"a": [X, Y]})
    check(pair, named={"a": [Y, X]}, pair=(Y, Y))


@both
def test_a_tensor_that_the_example_gives_twice_is_two_inputs(structure: str) -> None:
    pair = rewrite(Nested(), (X, Y), {"a": [X, Y]}, structure=structure)
    different = [numbers(3, 8, seed=seed) for seed in range(5, 9)]
    check(pair, tuple(different[:2]), {"a": different[2:]})


@both
@pytest.mark.parametrize("module", [Optional(), Star(), Keywords(), Nested()])
def test_the_signature_is_that_of_the_original(module: torch.nn.Module, structure: str) -> None:
    examples: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
        "Optional": ((X,), {}),
        "Star": ((X, Y), {}),
        "Keywords": ((), {"x": X}),
        "Nested": (((X, Y), {"a": [X, Y]}), {}),
    }
    args, kwargs = examples[type(module).__name__]
    model = rewrite(module, *args, structure=structure, **kwargs).model
    forward, original = model.forward, module.forward
    names = list(inspect.signature(original).parameters)
    assert list(inspect.signature(forward).parameters) == names
    for name, parameter in inspect.signature(original).parameters.items():
        found = inspect.signature(forward).parameters[name]
        assert (found.kind, found.default) == (parameter.kind, parameter.default)
    assert forward.__doc__ == original.__doc__
    assert inspect.get_annotations(type(model).forward) == inspect.get_annotations(
        type(module).forward
    )


@both
def test_the_class_is_still_the_class(structure: str) -> None:
    pair = classifier(structure)
    assert isinstance(pair.model, type(pair.original))
    assert type(pair.model).__name__ == "RationalClassifier"
    assert type(pair.model).__module__ == type(pair.original).__module__
    assert not pair.model.training
    assert [name for name, _ in pair.model.named_parameters()] == [
        name for name, _ in pair.original.named_parameters()
    ]
    names = [name for name, _ in pair.model.named_children()]
    assert names[:4] == ["linear", "norm", "activation", "head"]


@both
def test_wrong_calls_are_type_errors_as_before(structure: str) -> None:
    model = classifier(structure).model
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'x'"):
        model()
    with pytest.raises(TypeError, match="unexpected keyword argument 'y'"):
        model(X, y=3)
    with pytest.raises(TypeError, match="takes 2 positional arguments but 3 were given"):
        model(X, Y)


# A graph holds for the inputs that it was made for, and says so for others.


@pytest.fixture(scope="module")
def optional() -> torch.nn.Module:
    return rewrite(Optional(), X, power=3).model


def line(model: torch.nn.Module, *args: Any, **kwargs: Any) -> str:
    with pytest.raises(OdpError) as raised:
        model(*args, **kwargs)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_an_option_with_another_value(optional: torch.nn.Module) -> None:
    assert "'power' is 2, but the module was exported with 3" in line(optional, X, power=2)
    assert "exported without 'shifted'" in line(optional, X, power=3, shifted=True)
    assert "exported without 'scale'" in line(optional, X, Y, 3)
    assert "'power'" in line(optional, X)


def test_another_size(optional: torch.nn.Module) -> None:
    text = line(optional, X[:2], power=3)
    assert "'x' has size 2 along axis 0" in text and "dynamic_shapes" in text


def test_another_rank(optional: torch.nn.Module) -> None:
    assert "'x' has shape [8]" in line(optional, X[0], power=3)


def test_something_else_than_a_tensor(optional: torch.nn.Module) -> None:
    assert "'x' must be a tensor, not a float" in line(optional, 1.0, power=3)
    assert "nested otherwise" in line(optional, (X, X), power=3)


def test_containers_of_another_length() -> None:
    model = rewrite(Nested(), (X, Y), {"a": [X, Y]}).model
    assert "nested otherwise" in line(model, (X, Y), {"a": [X, Y, X]})
    assert "nested otherwise" in line(model, (X, Y), {"b": [X, Y]})
    assert "nested otherwise" in line(model, [X, Y], {"a": [X, Y]})
