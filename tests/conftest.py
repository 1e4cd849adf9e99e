"""What all tests share: the text form of ONNX, and a command line that runs in this process."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from odp.cli.entry import main, rewrite_main
from odp.rewriter.onnx_graph import OnnxGraph

# Tests are about what the code computes, not about what an earlier run left on this machine.
os.environ["ODP_CACHE"] = "off"
# Processes that share the cores would take them from each other: two with two threads each took
# longer than two with one.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"
# A suite that was started in the background ignores SIGINT, and what it starts would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


def parse_model(
    text: str,
    opset: int = 17,
    initializers: dict[str, NDArray[Any]] | None = None,
    domains: dict[str, int] | None = None,
) -> onnx.ModelProto:
    """A model from ONNX's text form, `(float[2,8] x) => (float[2,8] y) { y = Exp(x) }`."""
    imports = ", ".join(f'"{d}" : {v}' for d, v in {"": opset, **(domains or {})}.items())
    model = onnx.parser.parse_model(f"<ir_version: 8, opset_import: [{imports}]> g {text}")
    for name, array in (initializers or {}).items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    return model


@pytest.fixture(autouse=True)
def compilation_is_left_as_it_was() -> Iterator[None]:
    """A command that turns off torch.compile and forgets it would break the tests after it."""
    yield
    if "torch._dynamo.eval_frame" in sys.modules:
        from torch._dynamo import eval_frame

        assert eval_frame._stance.stance == "default"


@pytest.fixture(scope="session")
def onnx_text() -> Callable[..., onnx.ModelProto]:
    """`onnx_text("(float[2] x) => (float[2] y) { y = Exp(x) }", opset=17, initializers={})`."""
    return parse_model


@pytest.fixture(scope="session")
def graph_of() -> Callable[..., OnnxGraph]:
    """Like `onnx_text`, but the neutral view of the model, with inferred shapes."""

    def build(text: str, **options: Any) -> OnnxGraph:
        proto = onnx.shape_inference.infer_shapes(parse_model(text, **options))
        return OnnxGraph(ir.from_proto(proto))

    return build


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str

    def error(self) -> str:
        """The one line of a command that failed on bad input."""
        assert self.code == 2, f"exit code {self.code}: {self.err}"
        assert self.out == ""
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("error: ")
        return lines[0].removeprefix("error: ")


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run `odp-rewrite` (or `odp`, by `program=`) in this process, native output captured too."""

    def run(*arguments: str | Path, program: str = "odp-rewrite") -> Outcome:
        entry = {"odp-rewrite": rewrite_main, "odp": main}[program]
        capfd.readouterr()
        with pytest.raises(SystemExit) as stopped:
            entry([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        assert isinstance(stopped.value.code, int)
        return Outcome(stopped.value.code, out, err)

    return run
