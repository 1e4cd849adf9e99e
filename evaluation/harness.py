"""Benchmarks of language models, by lm-evaluation-harness through its own Python API.

Source: https://github.com/EleutherAI/lm-evaluation-harness, `lm_eval.simple_evaluate`.  Nothing of
a task is changed: prompts, metrics and standard errors are those of the harness.
"""

from __future__ import annotations

import contextlib
import copy
import difflib
import logging
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from odp.approximations.errors import OdpError
from odp.evaluation.foreign_errors import first_line
from odp.evaluation.offline import offline
from odp.evaluation.record import TaskScore
from odp.evaluation.variant_names import ORIGINAL, check_names

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["run_tasks"]


def run_tasks(
    original: PreTrainedModel,
    variants: Mapping[str, PreTrainedModel],
    tokenizer: PreTrainedTokenizerBase,
    tasks: Sequence[str] = (),
    *,
    folders: Sequence[str | Path] = (),
    shots: int | None = None,
    limit: int | None = None,
    batch_size: int = 8,
    chat: bool = False,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> list[TaskScore]:
    """Run tasks of lm-evaluation-harness on the original and on every variant.

    Nothing is downloaded: the data of a task must be on this machine, either in files that a task
    folder names or in the cache of the package datasets.

    Args:
        original: a causal language model.
        variants: models with the same vocabulary, by name.
        tokenizer: the tokenizer of all of them.
        tasks: names of tasks, groups or tags, such as `mmlu`, `hellaswag` or `arc_easy`.  Without
            any, all tasks of `folders` are run.
        folders: folders with further tasks, as YAML files.
        shots: number of examples before each question; None is what each task says.
        limit: largest number of questions of each task; None for all.
        batch_size: number of answers that are scored at once.
        chat: whether to put the tokenizer's chat template, if it has one, around prompts.
        progress: called as `progress("tasks", models done, models in all)`.

    Returns:
        One row for each metric of each task and group, in the order of the harness.

    Raises:
        OdpError: lm-eval is not installed, a task does not exist, its data are not on this machine,
            or it cannot be run.
    """
    check_names(variants)
    for name, number, least in (
        ("shots", shots, 0),
        ("limit", limit, 1),
        ("batch_size", batch_size, 1),
    ):
        if number is not None and number < least:
            raise OdpError(f"{name} must be at least {least}, not {number}")
    try:
        import datasets
        import lm_eval
    except ImportError as error:
        raise OdpError(
            f"tasks need lm-evaluation-harness ({error.name} is missing): "
            'pip install "odp-rewrite[harness]"'
        ) from None
    del datasets, lm_eval  # imported here so that they do not stay offline; see `offline`
    if chat and not tokenizer.chat_template:
        chat = False
    models = {ORIGINAL: original, **variants}
    with offline(), _quiet():
        manager, names = _find(tasks, folders)
        results: dict[str, Any] = {}
        progress("tasks", 0, len(models))
        for name, model in models.items():
            results[name] = _run(model, tokenizer, manager, names, shots, limit, batch_size, chat)
            progress("tasks", len(results), len(models))
    return _rows(results)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _find(tasks: Sequence[str], folders: Sequence[str | Path]) -> tuple[Any, list[str]]:
    """The harness's manager of tasks, and the names to run, all of which can be loaded."""
    from lm_eval.tasks import TaskManager

    for folder in folders:
        if not Path(folder).is_dir():
            raise OdpError(f"task folder '{folder}' does not exist")
    paths = [str(folder) for folder in folders]
    manager: Any = None
    if paths:
        try:
            manager = TaskManager(include_path=paths, include_defaults=False)
        except Exception as error:  # whatever the YAML files of a user lead to
            raise OdpError(f"cannot read task folder '{paths[0]}': {first_line(error)}") from error
        if not manager.all_subtasks:
            raise OdpError(f"task folder '{paths[0]}' has no task, which is a YAML file")
    names = list(dict.fromkeys(tasks)) or (list(manager.all_subtasks) if manager else [])
    if not names:
        raise OdpError("name at least one task, or a folder of tasks")
    # To index the thousands of tasks of the harness takes seconds.
    if manager is None or not set(names) <= set(manager.all_tasks):
        manager = TaskManager(include_path=paths or None)
    for name in names:
        _check_task(manager, name)
    return manager, names


def _check_task(manager: Any, name: str) -> None:
    if name not in manager.all_tasks:
        near = difflib.get_close_matches(name, manager.all_tasks, n=3)
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        raise OdpError(f"there is no task '{name}'{hint}")
    try:
        manager.load([name])
    except OSError as error:
        raise OdpError(_without_data(name, error)) from error
    except Exception as error:  # whatever the YAML file of a user leads to
        raise OdpError(f"cannot load task '{name}': {first_line(error)}") from error


def _without_data(name: str, error: OSError) -> str:
    hub = re.search(r"'([^']+)' on the Hub|[Dd]ataset ([\w./-]+) is not cached", str(error))
    if hub is None:
        return f"the data of task '{name}' cannot be read: {first_line(error)}"
    return (
        f"task '{name}' needs the data set {hub[1] or hub[2]}, which is not on this machine; where "
        f"there is a network, run 'lm_eval --model dummy --tasks {name} --limit 1', then copy "
        "~/.cache/huggingface (or set HF_HOME to it)"
    )


def _run(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    manager: Any,
    names: list[str],
    shots: int | None,
    limit: int | None,
    batch_size: int,
    chat: bool,
) -> Any:
    import lm_eval
    from lm_eval.models.huggingface import HFLM

    training = [module for module in model.modules() if module.training]
    try:
        wrapped = HFLM(
            pretrained=model,
            # The harness may give it a token for padding.
            tokenizer=copy.deepcopy(tokenizer),
            backend="causal",
            batch_size=batch_size,
            # In half precision the scores of answers would tie.
            softmax_dtype="float32",
        )
        return lm_eval.simple_evaluate(
            model=wrapped,
            tasks=names,
            task_manager=manager,
            num_fewshot=shots,
            limit=limit,
            apply_chat_template=chat,
            log_samples=False,
        )
    except Exception as error:  # whatever templates and settings of a task lead to
        raise OdpError(f"cannot run {', '.join(names)}: {first_line(error)}") from error
    finally:
        for module in training:
            module.training = True


def _rows(results: Mapping[str, Any]) -> list[TaskScore]:
    first = results[ORIGINAL]
    rows = []
    for task, metrics in first["results"].items():
        for key in metrics:
            metric, comma, chosen = key.partition(",")
            if not comma or metric.endswith("_stderr"):
                continue
            values = {name: _value(found["results"][task][key]) for name, found in results.items()}
            higher: bool | None = first["higher_is_better"].get(task, {}).get(metric)
            rows.append(
                TaskScore(
                    task=task,
                    metric=metric if chosen == "none" else key,
                    higher_is_better=higher,
                    samples=int(metrics["sample_len"]),
                    shots=first["n-shot"].get(task),
                    values=values,
                    stderr={
                        name: _number(found["results"][task].get(f"{metric}_stderr,{chosen}"))
                        for name, found in results.items()
                    },
                    differences={
                        name: _value(value - values[ORIGINAL])
                        for name, value in values.items()
                        if name != ORIGINAL
                    },
                )
            )
    return rows


def _value(value: Any) -> float:
    # A model that computes nan has no finite perplexity.
    number = float(value)
    return math.inf if math.isnan(number) else number


def _number(value: Any) -> float | None:
    # The harness writes "N/A" where it has none.
    return None if value is None or isinstance(value, str) else float(value)
