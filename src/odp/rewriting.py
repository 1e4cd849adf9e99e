"""`odp.rewrite`: the main job from a model to a rewritten model and its report."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from odp.approximations.errors import OdpError
from odp.job import Job, Stage

if TYPE_CHECKING:
    from odp.rewriter.ranges import Ranges
    from odp.rewriter.report import Report
    from odp.rewriter.rewrite_pass import Pass
    from odp.rewriter.site import Site

__all__ = ["RewriteResult", "Stage", "calibrate", "find_sites", "job_of", "rewrite"]


@dataclass(frozen=True)
class RewriteResult:
    """A rewritten model.

    Attributes:
        model: an `onnx_ir.Model`, lowered to the requested opset; or the torch module.
        report: what was done and what it cost.
        ranges: what calibration saw, to be saved and used again.
        program: the `torch.export.ExportedProgram` that the model was, if it was one.
    """

    model: Any
    report: Report
    ranges: Ranges
    program: Any = None

    def save(self, path: str | Path, *, external_data: bool | None = None) -> None:
        """Write an ONNX model, or what was an exported program; never half a file.

        A torch module is saved as any other: `torch.save(model.state_dict(), ...)`, `torch.save` of
        the module itself, or `torch.export.save(torch.export.export(model, ...), ...)`.

        Args:
            path: an `.onnx` file, or a `.pt2` file for an exported program.
            external_data: whether weights go to a file beside it; None decides by size (2 GB).

        Raises:
            OdpError: the file cannot be written, or the model is a torch module.
        """
        import onnx_ir as ir

        from odp.backends.onnx.save import save_model

        if self.program is not None:
            from odp.backends.torch.program_file import program_bytes
            from odp.backends.whole_files import write_bytes

            write_bytes(Path(path), program_bytes(self.model, self.program))
            return
        if not isinstance(self.model, ir.Model):
            raise OdpError(
                "save writes ONNX models; save a module with torch.save, or export it with "
                "torch.onnx.export or torch.export.export"
            )
        save_model(self.model, path, external_data=external_data)


def rewrite(
    model: Any,
    passes: str | Sequence[Pass] = "all",
    *,
    calibration: Any = None,
    example_inputs: Any = None,
    tokenizer: Any = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    dynamic_shapes: Any = None,
    structure: Literal["graph", "modules"] | None = None,
    target: Literal["torch", "triton"] = "torch",
    error: float = 1e-5,
    margin: float = 0.25,
    guard: str = "clip",
    opset: int | None = 12,
    context: int | None = None,
    samples: int | None = None,
    seed: int = 0,
    measure: bool = True,
    share_parameters: bool = False,
    explain: Collection[str] = (),
    progress: Stage = lambda what, done, total: None,
) -> RewriteResult:
    """Replace the transcendental operations of a model by rational expressions.

    Args:
        model: an ONNX model (path, `onnx.ModelProto` or `onnx_ir.Model`), a `torch.nn.Module`, or a
            `torch.export.ExportedProgram` or the path of one (.pt2).  It is copied, never changed.
        passes: what to replace, as on the command line: `"rsqrt{error=1e-6},exp,rope"`.
        calibration: the data that decides the domains.  For ONNX the path of an .npz file, or
            arrays by input name; None generates random inputs.  For torch inputs (a tensor, a tuple
            of positional ones, a dict by name), a list or data loader of such inputs, or text with
            a `tokenizer`: the path of a file, or a list of prompts and paths.  For both ranges that
            were found before: `RewriteResult.ranges`, or the path of a .json file of them.
        example_inputs: inputs to trace a torch module with, in the same forms; the first ones of
            `calibration` if left out.
        tokenizer: of transformers, for text.
        shapes: static shapes of the inputs of an ONNX model that have dynamic ones.
        dynamic_shapes: of a torch module, as for `torch.export.export`.
        structure: what a torch module becomes.  `graph`: its forward runs one rewritten graph, in
            which composites such as norms are recognised whole.  `modules`: it keeps its class, its
            submodules and its code, in which the transcendental functions are others; caches,
            adapters and hooks work.  None takes `modules` for models of transformers.
        target: where a torch module runs.  `triton` puts fused operators in the place of norms,
            gated layers, softmax, attention and rotary embeddings: one kernel each on a GPU, the
            same terms in torch elsewhere.  Their functions hold for every float, within `error`.
        error: largest error at each site, absolute or relative as the function asks for.
        margin: share of its width by which every calibrated range grows on each side.
        guard: `clip` keeps inputs inside the domains at run time, `none` does not.
        opset: operator set to lower an ONNX model to, which is 12; None keeps the model's.
        context: tokens in a window of text; the length of the example, or 512 if the model has
            dynamic shapes.
        samples: number of inputs to use; of text at most 16 windows unless given, of an ONNX model
            without data 4.
        seed: of generated inputs.
        measure: whether to measure the error of every pass at the outputs.
        share_parameters: whether the rewritten torch module uses the memory of the original's
            parameters: half the memory, but training one changes the other.
        explain: names of passes, among `passes`, whose near misses are wanted.
        progress: called when a stage advances.

    Returns:
        The rewritten model, the report and the calibrated ranges.

    Raises:
        OdpError: bad input; one line that says what, where and what to do.
    """
    job = job_of(
        passes,
        calibration=calibration,
        error=error,
        margin=margin,
        guard=guard,
        samples=samples,
        seed=seed,
        measure=measure,
        explain=explain,
        progress=progress,
    )
    model, job = _loaded(model, job)
    if _is_of_torch(model):
        from odp.torch_rewriting import is_program, rewrite_module

        if shapes:
            raise OdpError("shapes is for ONNX models; a torch module takes dynamic_shapes")
        module, report, ranges = rewrite_module(
            model,
            job,
            example_inputs=example_inputs,
            tokenizer=tokenizer,
            dynamic_shapes=dynamic_shapes,
            structure=structure,
            context=context,
            share_parameters=share_parameters,
            destination=target,
        )
        return RewriteResult(module, report, ranges, model if is_program(model) else None)
    only_torch = {
        "example_inputs": example_inputs,
        "tokenizer": tokenizer,
        "dynamic_shapes": dynamic_shapes,
        "structure": structure,
        "context": context,
    }
    given = next((name for name, value in only_torch.items() if value is not None), None)
    if target != "torch":
        raise OdpError(f"target '{target}' is for torch modules; an ONNX model stays ONNX")
    if given is not None:
        raise OdpError(f"{given} is for torch modules; an ONNX model takes calibration and shapes")
    from odp.onnx_rewriting import rewrite_model

    lowered, report, ranges = rewrite_model(model, job, shapes=shapes, opset=opset)
    return RewriteResult(lowered, report, ranges)


def find_sites(
    model: Any,
    shapes: Mapping[str, Sequence[int]] | None = None,
    *,
    example_inputs: Any = None,
) -> tuple[list[Site], dict[str, int]]:
    """Every site of a model that the passes of `all` would rewrite, without calibrating it.

    Args:
        model: as for `rewrite`; a torch module is traced as one graph.
        shapes: static shapes of inputs of an ONNX model that have dynamic ones.
        example_inputs: inputs to trace a torch module with.

    Returns:
        The sites, and the transcendental operations that no pass takes, by type.

    Raises:
        OdpError: bad input.
    """
    model, _ = _loaded(model, None)
    if _is_of_torch(model):
        from odp.torch_rewriting import find_sites_of_module

        if shapes:
            raise OdpError("shapes is for ONNX models; a torch module takes example_inputs")
        return find_sites_of_module(model, job_of("all"), example_inputs)
    from odp.onnx_rewriting import find_sites_of_model

    return find_sites_of_model(model, shapes)


JobOrNone = TypeVar("JobOrNone", Job, None)


def _loaded(model: Any, job: JobOrNone) -> tuple[Any, JobOrNone]:
    """The program of a .pt2 file, and a job whose arrays are its inputs; others as they are."""
    if not isinstance(model, str | Path) or Path(model).suffix != ".pt2":
        return model, job
    from odp.backends.torch.program_file import inputs_of_archive, load_program

    program = load_program(Path(model))
    data = None if job is None else job.calibration
    if job is not None and isinstance(data, str | Path) and Path(data).suffix != ".json":
        job = replace(job, calibration=inputs_of_archive(Path(data), program, job.samples))
    return program, job


def _is_of_torch(model: Any) -> bool:
    """Whether a model is a module or an exported program, without importing torch for others."""
    torch = sys.modules.get("torch")
    if torch is None:
        return False
    return isinstance(model, torch.nn.Module | torch.export.ExportedProgram)


def calibrate(
    model: Any,
    passes: str | Sequence[Pass] = "all",
    *,
    calibration: Any = None,
    example_inputs: Any = None,
    tokenizer: Any = None,
    dynamic_shapes: Any = None,
    structure: Literal["graph", "modules"] | None = None,
    context: int | None = None,
    samples: int | None = None,
    seed: int = 0,
    progress: Stage = lambda what, done, total: None,
) -> Ranges:
    """Find out which range of inputs every site of a torch module sees, and nothing else.

    The ranges are what takes time; with them `odp.rewrite` and `torch.compile(backend="odp")`
    choose expressions for any error budget in seconds.

    Args:
        model: a `torch.nn.Module` or a `torch.export.ExportedProgram`, unchanged.
        passes: as for `rewrite`, as all that follow.
        calibration: see there.
        example_inputs: see there.
        tokenizer: see there.
        dynamic_shapes: see there.
        structure: see there.
        context: see there.
        samples: see there.
        seed: see there.
        progress: see there.

    Returns:
        The ranges; `to_json` writes them.

    Raises:
        OdpError: bad input; one line that says what, where and what to do.
    """
    job = job_of(passes, calibration=calibration, samples=samples, seed=seed, progress=progress)
    model, job = _loaded(model, job)
    if not _is_of_torch(model):
        raise OdpError(
            f"cannot calibrate a {type(model).__name__}: give a torch module or an exported "
            "program; for ONNX take the ranges of odp.rewrite"
        )
    from odp.torch_rewriting import calibrate_module

    return calibrate_module(
        model,
        job,
        example_inputs=example_inputs,
        tokenizer=tokenizer,
        dynamic_shapes=dynamic_shapes,
        structure=structure,
        context=context,
        share_parameters=True,
    ).ranges


def job_of(
    passes: str | Sequence[Pass],
    *,
    calibration: Any = None,
    error: float = 1e-5,
    margin: float = 0.25,
    guard: str = "clip",
    samples: int | None = None,
    seed: int = 0,
    measure: bool = True,
    explain: Collection[str] = (),
    progress: Stage = lambda what, done, total: None,
) -> Job:
    """The arguments that mean the same for every model, checked; see `rewrite`.

    Raises:
        OdpError: a pass, an option or a number is wrong.
    """
    from odp.passes import registry
    from odp.rewriter.selection import Defaults, select

    typed, named = _typed(passes, explain)
    if guard not in ("clip", "none"):
        raise OdpError(f"guard is 'clip' or 'none', not '{guard}'")
    defaults = Defaults(error=error, margin=margin, guard="clip" if guard == "clip" else "none")
    return Job(
        typed,
        named,
        registry(),
        defaults,
        calibration,
        samples,
        seed,
        measure,
        explain,
        progress,
        select,
    )


def _typed(passes: str | Sequence[Pass], explain: Collection[str]) -> tuple[list[Pass], set[str]]:
    """The passes, checked, and the names of those that the user named (`all` names none)."""
    from odp.passes import registry
    from odp.rewriter.pass_options import named_passes, parse_passes
    from odp.rewriter.selection import check_options

    typed = parse_passes(passes, registry()) if isinstance(passes, str) else list(passes)
    names = {rewrite.name for rewrite in typed}
    for chosen in typed:
        check_options(chosen)
    silent = next((name for name in explain if name not in names), None)
    if silent is not None:
        raise OdpError(f"cannot explain pass '{silent}': it is not one of the passes to run")
    return typed, named_passes(passes) if isinstance(passes, str) else names
