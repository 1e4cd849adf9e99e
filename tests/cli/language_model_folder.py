"""A tiny language model and texts on the disk, for the commands that read them."""

from __future__ import annotations

import random
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

__all__ = ["save_model", "save_text"]

WORDS = ["<s>", "</s>", "<unk>", *(f"w{number}" for number in range(57))]


def save_model(folder: Path, seed: int = 0) -> Path:
    """A Llama of two layers and a tokenizer with one token a word."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.2,
        bos_token_id=0,
        eos_token_id=1,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, "<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
    return folder


def save_text(file: Path, tokens: int, seed: int = 0) -> Path:
    """Random words."""
    chosen = random.Random(seed)
    file.write_text(" ".join(f"w{chosen.randrange(57)}" for _ in range(tokens)))
    return file
