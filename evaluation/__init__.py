"""How good a language model is after rewriting, compared with the original.

    from odp.evaluation import evaluate, load_language_model, read_texts

    original = load_language_model("SmolLM2-135M")
    found = evaluate(
        original.model, {"rational": rewritten}, original.tokenizer, read_texts(["prose.txt"])
    )
    print(found.variants[0].difference)   # change of perplexity, KL, agreement of top tokens

torch and transformers are loaded when something is measured, lm-evaluation-harness (the extra
`harness`) when a task is run.
"""

from odp.evaluation.comparison import evaluate, plan_evaluation
from odp.evaluation.evaluation_table import render
from odp.evaluation.first_order_bound import OutputBound, first_order_bounds
from odp.evaluation.gguf_conversion import conversion_folder, convert_gguf
from odp.evaluation.harness import run_tasks
from odp.evaluation.language_model import LanguageModel, check_weights, load_language_model
from odp.evaluation.record import Evaluation
from odp.evaluation.texts import Text, read_texts

__all__ = [
    "Evaluation",
    "LanguageModel",
    "OutputBound",
    "Text",
    "check_weights",
    "conversion_folder",
    "convert_gguf",
    "evaluate",
    "first_order_bounds",
    "load_language_model",
    "plan_evaluation",
    "read_texts",
    "render",
    "run_tasks",
]
