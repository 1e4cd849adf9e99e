"""GGUF files become folders, once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch

from odp.approximations.errors import OdpError
from odp.evaluation import conversion_folder, convert_gguf, load_language_model

from .tiny_models import POSITIONS, VOCABULARY, llama

# Of GGUF's names for the parts of a Llama block to those of transformers.
BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
# A vocabulary of single letters, one pair of them that is merged, and what is never used.
TOKENS = ["<s>", "</s>", "<unk>", "w", *"0123456789", "12"]
TOKENS += [f"unused{number}" for number in range(VOCABULARY - len(TOKENS))]
OUTSIDE = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}


def permuted(weight: Any, heads: int) -> Any:
    """Rows of queries and keys in the order of GGUF, which pairs rotary channels otherwise."""
    size = weight.shape[0]
    return weight.reshape(heads, 2, size // heads // 2, -1).swapaxes(1, 2).reshape(weight.shape)


def write_gguf(file: Path, model: Any) -> None:
    """Write a tiny Llama as llama.cpp would, in float32."""
    config, weights = model.config, model.state_dict()
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_context_length(POSITIONS)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(TOKENS)
    writer.add_token_merges(["1 2"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_unk_token_id(2)
    names = {f"{ours}.weight": f"{theirs}.weight" for theirs, ours in OUTSIDE.items()}
    for layer in range(config.num_hidden_layers):
        for theirs, ours in BLOCK.items():
            names[f"model.layers.{layer}.{ours}.weight"] = f"blk.{layer}.{theirs}.weight"
    assert names.keys() == weights.keys()
    for ours, theirs in names.items():
        weight = weights[ours].numpy()
        if "q_proj" in ours or "k_proj" in ours:
            query = "q_proj" in ours
            heads = config.num_attention_heads if query else config.num_key_value_heads
            weight = permuted(weight, heads)
        writer.add_tensor(theirs, np.ascontiguousarray(weight))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "package"
    folder.mkdir()
    path = folder / "tiny.gguf"
    write_gguf(path, llama())
    return path


def test_a_converted_model_is_the_model(file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    steps: list[tuple[str, int, int]] = []
    for given in (file, file.parent):
        steps.clear()
        loaded = load_language_model(given, progress=lambda *step: steps.append(step))
        ids = torch.arange(3, 40)[None]
        with torch.no_grad():
            found, expected = loaded.model(ids).logits, llama()(ids).logits
        # The same float32 numbers in the same operations.
        assert torch.equal(found, expected)
        assert loaded.folder == conversion_folder(file)
        assert loaded.tokenizer("w12")["input_ids"] == [TOKENS.index("w"), TOKENS.index("12")]
        assert loaded.tokenizer.bos_token == "<s>"
    # The second time nothing was left to be converted.
    assert steps == [("load", 0, 1), ("load", 1, 1)]
    assert capfd.readouterr().err == ""
    # Nothing half done lies beside the result.
    assert list(loaded.folder.parent.iterdir()) == [loaded.folder]


def test_progress_is_told_when_something_is_converted(file: Path, tmp_path: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    folder = tmp_path / "deep" / "weights"
    for _ in range(2):
        assert convert_gguf(file, folder, progress=lambda *step: steps.append(step)) == folder
    assert steps == [("convert", 0, 1), ("convert", 1, 1)]
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {
        path.name for path in folder.iterdir()
    }


def test_another_file_has_another_folder(file: Path) -> None:
    before = conversion_folder(file)
    assert before == conversion_folder(file)
    os.utime(file, ns=(1, 1))
    assert conversion_folder(file) != before


def test_files_that_cannot_be_converted(tmp_path: Path, file: Path) -> None:
    def error(path: Path, folder: Path) -> str:
        with pytest.raises(OdpError) as caught:
            convert_gguf(path, folder)
        return str(caught.value)

    gone = tmp_path / "gone.gguf"
    assert error(gone, tmp_path / "a") == f"GGUF file '{gone}' does not exist"
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF and nothing else")
    assert error(broken, tmp_path / "a").startswith(f"cannot read GGUF file '{broken}': ")
    assert not (tmp_path / "a").exists()
    blocked = tmp_path / "blocked"
    blocked.touch()
    assert error(file, blocked / "a").startswith(f"cannot keep the weights in '{blocked / 'a'}': ")
