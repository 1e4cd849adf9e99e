"""Language models of a few thousand random numbers, and a tokenizer for them, made offline."""

from __future__ import annotations

import copy
import random
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

VOCABULARY = 100
POSITIONS = 64
WORDS = ["<s>", "</s>", "<unk>"] + [f"w{number}" for number in range(VOCABULARY - 3)]
CHAT_TEMPLATE = "{% for m in messages %}w1 {{ m['content'] }} w2{% endfor %} w3"


def tokenizer(*, adds_begin: bool = False, chat: bool = False) -> Any:
    """One token for each of the words w0 to w96; ids are their numbers plus 3."""
    vocabulary = {word: index for index, word in enumerate(WORDS)}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    if adds_begin:
        words.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", 0)]
        )
    made: Any = PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    if chat:
        made.chat_template = CHAT_TEMPLATE
    return made


def llama(seed: int = 0, layers: int = 3, vocabulary: int = VOCABULARY) -> Any:
    """A Llama whose logits differ enough from each other to be interesting."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=POSITIONS,
        initializer_range=0.2,
        bos_token_id=0,
        eos_token_id=1,
    )
    model: Any = LlamaForCausalLM(config)
    return model.eval()


def gpt2(seed: int = 0) -> Any:
    """A GPT-2, with dropout while it trains."""
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=POSITIONS,
        n_embd=32,
        n_layer=2,
        n_head=4,
        initializer_range=0.2,
        bos_token_id=0,
        eos_token_id=1,
    )
    model: Any = GPT2LMHeadModel(config)
    return model.eval()


def perturbed(model: Any, size: float = 1e-2, seed: int = 1) -> Any:
    """A copy whose weights are off by `size`, relative to them."""
    torch.manual_seed(seed)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1 + size * torch.randn_like(parameter))
    return other


def prose(tokens: int, seed: int = 0) -> str:
    """Random words, one token each."""
    chosen = random.Random(seed)
    return " ".join(f"w{chosen.randrange(VOCABULARY - 3)}" for _ in range(tokens))
