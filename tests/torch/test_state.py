"""A rewritten module is kept, copied, moved and trained as the original is."""

from __future__ import annotations

import copy
import io
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from odp.backends.torch.discovery import Operations
from odp.backends.torch.inputs import Inputs

from .modules import Batched, Classifier, Counting, Shared, Tied, numbers
from .rewriting import STRUCTURES, Analysed, assert_within, choices_of
from .rewritten import PASSES, Pair, classifier, rewrite

X = numbers(3, 8)
both = pytest.mark.parametrize("structure", STRUCTURES)
TRAINED = [Classifier, Tied, Batched, Shared]


def example(module: torch.nn.Module) -> torch.Tensor:
    return torch.arange(6).reshape(2, 3) if isinstance(module, Tied) else X


def check(pair: Pair, model: torch.nn.Module, x: torch.Tensor = X) -> None:
    """A model computes what the rewritten one does, and nothing transcendental."""
    with torch.no_grad():
        model(x)
        with Operations() as executed:
            found = model(x)
    assert_within(found, pair.bounds(x))
    assert not executed.transcendental


# Parameters


@both
@pytest.mark.parametrize("kind", [Classifier, Tied, Shared])
def test_a_state_dict_loads_both_ways(kind: type[torch.nn.Module], structure: str) -> None:
    original = kind().eval()
    model = rewrite(original, example(original), structure=structure).model
    assert list(model.state_dict()) == list(original.state_dict())
    other = copy.deepcopy(original)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(0.5)
    assert not model.load_state_dict(other.state_dict()).missing_keys
    inputs = Inputs((example(other),))
    bounds = Analysed(other, model, inputs, PASSES).bounds(inputs)
    assert_within(model(*inputs.args), bounds)
    assert not original.load_state_dict(model.state_dict()).unexpected_keys


@both
def test_buffers_are_in_the_state_dict(structure: str) -> None:
    original = Batched().eval()
    model = rewrite(original, X, structure=structure).model
    assert list(model.state_dict()) == list(original.state_dict())
    other = {name: value + 1 for name, value in original.state_dict().items()}
    model.load_state_dict(other)
    assert torch.equal(model.norm.running_mean, other["norm.running_mean"])


@both
def test_parameters_are_copies_unless_shared(structure: str) -> None:
    original = Classifier().eval()
    own = rewrite(original, X, structure=structure).model
    shared = rewrite(original, X, structure=structure, options={"share_parameters": True}).model
    for name, parameter in original.named_parameters():
        assert own.get_parameter(name).data_ptr() != parameter.data_ptr()
        assert shared.get_parameter(name).data_ptr() == parameter.data_ptr()


@both
def test_tied_parameters_stay_tied(structure: str) -> None:
    model = rewrite(Tied().eval(), example(Tied()), structure=structure).model
    assert model.output.weight is model.embedding.weight
    assert len(list(model.parameters())) == 1


@both
def test_what_requires_no_gradient_still_does_not(structure: str) -> None:
    original = Classifier().eval()
    original.linear.requires_grad_(False)
    model = rewrite(original, X, structure=structure).model
    wanted = {name: p.requires_grad for name, p in original.named_parameters()}
    assert {name: p.requires_grad for name, p in model.named_parameters()} == wanted


# Training


@both
@pytest.mark.parametrize("kind", TRAINED)
def test_gradients_are_the_derivatives(kind: type[torch.nn.Module], structure: str) -> None:
    """Of the expressions, by differences in float64: no error is declared for derivatives."""
    original = kind().train()
    x = example(original)
    model = rewrite(original, x, structure=structure).model
    assert model.training
    model = model.double()
    x = x.double() if x.is_floating_point() else x
    names = [name for name, _ in model.named_parameters()]
    values = [p.detach().clone().requires_grad_() for p in model.parameters()]

    def run(*parameters: torch.Tensor) -> torch.Tensor:
        given = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(model, given, (x,))

    assert torch.autograd.gradcheck(run, values)


@both
def test_training_makes_a_loss_smaller(structure: str) -> None:
    model = rewrite(Classifier(), X, structure=structure).model
    target = torch.tensor([0, 1, 2])
    optimiser = torch.optim.SGD(model.parameters(), lr=0.5)

    def loss() -> torch.Tensor:
        return -model(X)[torch.arange(3), target].log().mean()

    first = float(loss())
    for _ in range(20):
        optimiser.zero_grad()
        loss().backward()
        optimiser.step()
    assert float(loss()) < 0.7 * first


@both
def test_buffers_that_forward_writes_to(structure: str) -> None:
    original, x = Counting(), X
    model = rewrite(original, x, structure=structure).model
    assert int(model.calls) == int(original.calls), "rewriting counted its own calls"
    (choice,) = choices_of(model).values()
    declared = choice.approximant.absolute_error
    for _ in range(3):
        # The sigmoid counts less at every call.
        torch.testing.assert_close(model(x), original(x), atol=declared, rtol=1e-6)
    assert int(model.calls) == int(original.calls)
    assert torch.equal(model.decay, original.decay)
    assert "decay" not in model.state_dict()


def test_modules_train_and_evaluate_as_they_are_told() -> None:
    original = Batched().train()
    model = rewrite(original, X, structure="modules").model
    model.train()
    before = model.norm.running_mean.clone()
    model(X)
    assert not torch.equal(model.norm.running_mean, before)
    model.eval()
    before = model.norm.running_mean.clone()
    model(X)
    assert torch.equal(model.norm.running_mean, before)


@both
def test_gradient_checkpointing(structure: str) -> None:
    from torch.utils.checkpoint import checkpoint

    model = rewrite(Classifier(), X, structure=structure).model
    gradients = []
    for use in (model, lambda x: checkpoint(model, x, use_reentrant=False)):
        model.zero_grad()
        use(X).square().sum().backward()
        gradients.append(model.linear.weight.grad.clone())
    assert torch.equal(*gradients)


# Copies and files


@both
def test_copies_are_independent(structure: str) -> None:
    pair = classifier(structure)
    model = copy.deepcopy(pair.model)
    check(pair, model)
    with torch.no_grad():
        model.linear.weight.zero_()
    check(pair, pair.model)


@both
def test_pickled_and_saved(structure: str) -> None:
    pair = classifier(structure)
    check(pair, pickle.loads(pickle.dumps(pair.model)))
    file = io.BytesIO()
    torch.save(pair.model, file)
    file.seek(0)
    check(pair, torch.load(file, weights_only=False))


@both
def test_saved_here_and_loaded_in_another_process(structure: str, tmp_path: Path) -> None:
    pair = classifier(structure)
    torch.save(pair.model, tmp_path / "model.pt")
    torch.save(X, tmp_path / "x.pt")
    script = (
        "import sys, torch; sys.path.insert(0, sys.argv[1])\n"
        "sys.modules['tests'] = type(sys)('tests'); sys.modules['tests'].__path__ = [sys.argv[1]]\n"
        "model = torch.load(sys.argv[2] + '/model.pt', weights_only=False)\n"
        "torch.save(model(torch.load(sys.argv[2] + '/x.pt')), sys.argv[2] + '/y.pt')\n"
    )
    tests = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", script, str(tests), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert_within(torch.load(tmp_path / "y.pt"), pair.bounds(X))


# Types


@both
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_moved_to_another_type(dtype: torch.dtype, structure: str) -> None:
    pair = classifier(structure)
    model: Any = copy.deepcopy(pair.model).to(dtype)
    with torch.no_grad():
        found = model(X.to(dtype))
        with Operations() as executed:
            model(X.to(dtype))
        wanted = copy.deepcopy(pair.original).double()(X.double())
        native = copy.deepcopy(pair.original).to(dtype)(X.to(dtype)).double()
    assert found.dtype == dtype and not executed.transcendental
    # As far from the truth as the original in this type, and what is declared on top.
    own = float((native - wanted).abs().max())
    declared = float(pair.bounds(X).error.max())
    assert float((found.double() - wanted).abs().max()) <= 4 * own + declared


@both
def test_moved_there_and_back(structure: str) -> None:
    pair = classifier(structure)
    check(pair, copy.deepcopy(pair.model).double().float())


@both
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_rewritten_in_another_type(dtype: torch.dtype, structure: str) -> None:
    original = Classifier().eval().to(dtype)
    model = rewrite(original, X.to(dtype), structure=structure).model
    with torch.no_grad():
        found, native = model(X.to(dtype)), original(X.to(dtype)).double()
        wanted = copy.deepcopy(original).double()(X.to(dtype).double())
    assert found.dtype == dtype
    own = float((native - wanted).abs().max())
    # Cheap expressions of the same degrees on the same data, in float32.
    declared = float(classifier(structure).bounds(X).error.max())
    assert float((found.double() - wanted).abs().max()) <= 4 * own + declared


# Hooks


def test_hooks_of_submodules_run_where_modules_are_kept() -> None:
    original, seen = Classifier().eval(), []
    pair = rewrite(original, X, structure="modules")
    handle = pair.model.activation.register_forward_hook(lambda m, i, o: seen.append(o.shape))
    pair.model(X)
    handle.remove()
    assert seen == [torch.Size([3, 8])]


@both
def test_hooks_of_the_module_itself_run(structure: str) -> None:
    model, seen = copy.deepcopy(classifier(structure).model), []
    model.register_forward_pre_hook(lambda m, i: seen.append("before"))
    model.register_forward_hook(lambda m, i, o: seen.append("after"))
    model(X)
    assert seen == ["before", "after"]


def test_printing_names_what_was_replaced() -> None:
    text = repr(classifier("modules").model)
    assert "RationalClassifier(" in text and "RationalGELU(" in text and "(head): Linear(" in text
