"""lm-evaluation-harness on tasks that lie in a folder."""

from __future__ import annotations

import copy
import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from odp.approximations.errors import OdpError
from odp.evaluation import run_tasks

from .tiny_models import llama, perturbed, tokenizer

QUESTIONS = [
    {"q": f"w{number} w{number + 1}", "choices": ["w5", "w6", "w7"], "a": number % 3}
    for number in range(12)
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A task of twelve questions with three answers each, and a group of it."""
    (tmp_path / "questions.json").write_text("\n".join(json.dumps(row) for row in QUESTIONS))
    (tmp_path / "tiny.yaml").write_text(task(tmp_path))
    return tmp_path


def task(folder: Path, data: str = "questions.json", target: str = "a") -> str:
    return f"""
task: tiny
dataset_path: json
dataset_kwargs:
  data_files:
    test: {folder / data}
  cache_dir: {folder / "cache"}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{q}}}}"
doc_to_choice: choices
doc_to_target: {target}
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
"""


def accuracy(model: Any) -> float:
    """Share of questions whose right answer has the largest logit after the question."""
    right = 0
    for row in QUESTIONS:
        ids = tokenizer()(row["q"])["input_ids"]
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, -1]
        answers = [tokenizer()(answer)["input_ids"][0] for answer in row["choices"]]
        right += int(logits[answers].argmax()) == row["a"]
    return right / len(QUESTIONS)


def error(folder: Path, tasks: list[str] | None = None, **options: Any) -> str:
    with pytest.raises(OdpError) as caught:
        run_tasks(llama(), {"v": llama()}, tokenizer(), tasks or [], folders=[folder], **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_local_task_is_scored_for_every_model(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    original = llama()
    variants = {"other": perturbed(original, 0.3), "same": copy.deepcopy(original)}
    expected = {n: accuracy(m) for n, m in {"original": original, **variants}.items()}
    assert expected["other"] != expected["original"]  # else the difference is not tested
    words = tokenizer()
    capfd.readouterr()
    steps: list[tuple[str, int, int]] = []
    (row,) = run_tasks(
        original,
        variants,
        words,
        ["tiny"],
        folders=[folder],
        progress=lambda *step: steps.append(step),
    )
    assert (row.task, row.metric, row.higher_is_better) == ("tiny", "acc", True)
    assert (row.samples, row.shots) == (12, 0)
    assert row.values == expected
    assert row.differences == {
        "other": expected["other"] - expected["original"],
        "same": 0.0,
    }
    for name, value in expected.items():
        # The standard error of a mean of zeros and ones, from their sample variance.
        stderr = math.sqrt(value * (1 - value) / (len(QUESTIONS) - 1))
        assert row.stderr[name] == pytest.approx(stderr, rel=1e-12)
    assert steps == [("tasks", done, 3) for done in range(4)]
    assert capfd.readouterr() == ("", "")
    assert words.pad_token is None  # the harness works on a copy


def test_all_tasks_of_a_folder_and_their_groups(folder: Path) -> None:
    (folder / "group.yaml").write_text(
        "group: tinies\ntask: [tiny]\naggregate_metric_list:\n  - metric: acc\n"
    )
    model = llama()
    rows = run_tasks(model, {"v": model}, tokenizer(), folders=[folder], limit=5)
    assert [(row.task, row.samples) for row in rows] == [("tiny", 5)]
    rows = run_tasks(model, {"v": model}, tokenizer(), ["tinies"], folders=[folder])
    assert sorted(row.task for row in rows) == ["tinies", "tiny"]
    assert {row.values["v"] for row in rows} == {accuracy(model)}


def test_examples_before_a_question_are_counted(folder: Path) -> None:
    yaml = task(folder) + "fewshot_split: test\n"
    (folder / "tiny.yaml").write_text(yaml)
    (row,) = run_tasks(llama(), {"v": llama()}, tokenizer(), folders=[folder], shots=2)
    assert row.shots == 2


def test_data_of_a_hub_are_never_fetched(folder: Path) -> None:
    yaml = task(folder).replace("dataset_path: json", "dataset_path: allenai/ai2_arc")
    begin, end = yaml.index("dataset_kwargs"), yaml.index("test_split")
    (folder / "tiny.yaml").write_text(yaml[:begin] + yaml[end:])
    message = error(folder)
    assert message.startswith(
        "task 'tiny' needs the data set allenai/ai2_arc, which is not on this machine"
    )
    assert "lm_eval --model dummy --tasks tiny --limit 1" in message


def test_folders_and_tasks_that_are_none(folder: Path, tmp_path: Path) -> None:
    assert error(tmp_path / "gone") == f"task folder '{tmp_path / 'gone'}' does not exist"
    (tmp_path / "empty").mkdir()
    assert "has no task, which is a YAML file" in error(tmp_path / "empty")
    with pytest.raises(OdpError, match="name at least one task"):
        run_tasks(llama(), {"v": llama()}, tokenizer())


def test_tasks_of_the_harness_itself(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lm_eval.tasks import manager

    # To index its thousands of tasks takes many seconds, so only one of its folders is left.
    only = Path(manager.__file__).parent / "arc" / "manager.py"
    monkeypatch.setattr(manager, "__file__", str(only))
    assert error(folder, ["tiny", "arc_eazy"]).startswith(
        "there is no task 'arc_eazy'; did you mean arc_easy"
    )
    assert error(folder, ["arc_easy"]).startswith(
        "task 'arc_easy' needs the data set allenai/ai2_arc, which is not on this machine"
    )


def test_tasks_that_cannot_be_run(folder: Path) -> None:
    (folder / "tiny.yaml").write_text(task(folder, data="gone.json"))
    assert error(folder).startswith("the data of task 'tiny' cannot be read: ")
    (folder / "tiny.yaml").write_text(task(folder, target='"{{nothing.here}}"'))
    assert error(folder).startswith("cannot ")
    (folder / "tiny.yaml").write_text("task: [unbalanced")
    assert "task folder" in error(folder)


@pytest.mark.parametrize(("option", "least"), [("shots", 0), ("limit", 1), ("batch_size", 1)])
def test_numbers_that_are_too_small(folder: Path, option: str, least: int) -> None:
    message = error(folder, **{option: least - 1})
    assert message == f"{option} must be at least {least}, not {least - 1}"


def test_a_model_that_computes_nan_has_scores_nevertheless(folder: Path) -> None:
    broken = llama()
    with torch.no_grad():
        broken.lm_head.weight[5] = math.nan
    yaml = task(folder, target='"{{q}}"').replace("multiple_choice", "loglikelihood_rolling")
    begin, end = yaml.index("metric_list"), yaml.index("doc_to_choice")
    yaml = yaml[:begin].replace(yaml[end : yaml.index("doc_to_target")], "")
    (folder / "tiny.yaml").write_text(yaml + "metric_list:\n  - metric: word_perplexity\n")
    (row,) = run_tasks(llama(), {"broken": broken}, tokenizer(), folders=[folder])
    assert row.metric == "word_perplexity" and math.isfinite(row.values["original"])
    assert row.values["broken"] == row.differences["broken"] == math.inf


def test_the_harness_may_be_missing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    assert error(folder) == (
        'tasks need lm-evaluation-harness (lm_eval is missing): pip install "odp-rewrite[harness]"'
    )
