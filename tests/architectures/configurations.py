"""Every architecture that the proof covers: how to build one, what to run it on, what it returns.

Adding an architecture is one entry of `ARCHITECTURES`.  All models are of random numbers, two
layers deep and 32 to 64 wide; the numbers are larger than those of a fresh model, because logits
that hardly differ from each other would say nothing about errors or greedy text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import transformers as hf

__all__ = ["ARCHITECTURES", "CONTINUATION", "TOKENS", "Architecture", "Feed"]

Feed = dict[str, torch.Tensor]
"""Inputs of one call, by name."""

VOCABULARY = 100
TOKENS = 10
BATCH = 2
CALIBRATION_BATCHES = 24
HELD_OUT_BATCHES = 2
CONTINUATION = 20
"""Tokens that are generated."""
PROMPT = 6
LONG = PROMPT + CONTINUATION


def padded_tokens(generator: torch.Generator, length: int = TOKENS) -> Feed:
    """Two texts, the first of which is padded on the left, as for generation."""
    padding = int(torch.randint(1, length // 2, (1,), generator=generator))
    ids = torch.randint(3, VOCABULARY, (BATCH, length), generator=generator)
    mask = (torch.arange(length) >= torch.tensor([[padding], [0]])).long()
    return {"input_ids": ids, "attention_mask": mask}


def plain_tokens(generator: torch.Generator, length: int = TOKENS) -> Feed:
    """Two texts of the same length, for models that take no mask."""
    return {"input_ids": torch.randint(3, VOCABULARY, (BATCH, length), generator=generator)}


def text_pairs(generator: torch.Generator, length: int = TOKENS) -> Feed:
    """Texts for an encoder, padded, and texts for a decoder."""
    decoded = torch.randint(3, VOCABULARY, (BATCH, length), generator=generator)
    return {**padded_tokens(generator, length), "decoder_input_ids": decoded}


def images(generator: torch.Generator) -> Feed:
    return {"pixel_values": torch.randn((BATCH, 3, 16, 16), generator=generator)}


def spectrograms(generator: torch.Generator) -> Feed:
    return {"input_features": torch.randn((BATCH, 16, 48), generator=generator)}


@dataclass(frozen=True)
class Architecture:
    """One architecture of transformers.

    Attributes:
        model: class of the model.
        config: class of its configuration.
        settings: of the small configuration.
        feed: inputs of one call, from a generator.
        output: name of the output that is measured.
        attentions: implementations of attention that the model has.
        generates: whether it continues text.
        fast: whether its tests are among those that always run.
        note: what a reader of the page must know, or an empty string.
        experts: whether it chooses experts.
        prepare: what is done to the model after it was built.
    """

    model: type[Any]
    config: type[Any]
    settings: Mapping[str, Any]
    feed: Callable[[torch.Generator], Feed] = padded_tokens
    output: str = "logits"
    attentions: tuple[str, ...] = ("eager", "sdpa")
    generates: bool = True
    fast: bool = False
    note: str = ""
    experts: bool = False
    prepare: Callable[[Any], None] | None = None

    def build(self, attention: str) -> Any:
        """The model, always with the same numbers."""
        torch.manual_seed(0)
        options = {} if self.attentions == (NO_CHOICE,) else {"attn_implementation": attention}
        model = self.model(self.config(**self.settings, **options)).eval()
        if self.experts:
            # The default multiplies experts in groups by an operator that ONNX has not.
            model.set_experts_implementation("batched_mm")
        if self.prepare is not None:
            self.prepare(model)
        # What is traced is one call; `generate` asks for its cache by itself.
        for part in model.modules():
            if hasattr(part, "config"):
                part.config.use_cache = False
        return model

    def is_fast(self, attention: str) -> bool:
        """Whether its tests always run with this attention."""
        return self.fast and attention == self.attentions[-1]

    def calibration(self, structure: str) -> list[Feed]:
        """Inputs that the domains come from; only modules take texts of several lengths."""
        feeds = self._feeds(1, CALIBRATION_BATCHES)
        if structure == "modules" and self.generates:
            generator = torch.Generator().manual_seed(3)
            feeds.append(self.feed(generator, LONG))  # type: ignore[call-arg]
        return feeds

    def held_out(self) -> list[Feed]:
        """Inputs of the same kind that calibration has not seen."""
        return self._feeds(2, HELD_OUT_BATCHES)

    def output_of(self, model: Any, feed: Feed) -> torch.Tensor:
        """The output that is measured, without that of padding.

        Nothing reads what stands at padding, and it has no meaning: attention that may look at
        nothing looks at everything.
        """
        found: torch.Tensor = getattr(model(**feed), self.output)
        mask = feed.get("attention_mask")
        if mask is None or "decoder_input_ids" in feed or found.shape[:2] != mask.shape:
            return found
        return found[mask.bool()]

    def prompt(self) -> Feed:
        """One text to be continued."""
        ids = self.held_out()[0]["input_ids"][1:, :PROMPT]
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    def _feeds(self, seed: int, count: int) -> list[Feed]:
        generator = torch.Generator().manual_seed(seed)
        return [self.feed(generator) for _ in range(count)]


NO_CHOICE = "own"
"""Attention of models that have none of the usual kind."""

_DECODER: Mapping[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_EXPERTS: Mapping[str, Any] = {**_DECODER, "num_local_experts": 4, "num_experts_per_tok": 2}
_WITHOUT_HEAD_DIM = {name: value for name, value in _DECODER.items() if name != "head_dim"}
_ENCODER: Mapping[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "initializer_range": 0.2,
}
_RECURRENT: Mapping[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "state_size": 8,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}

ARCHITECTURES: Mapping[str, Architecture] = {
    "llama": Architecture(hf.LlamaForCausalLM, hf.LlamaConfig, _DECODER, fast=True),
    "bitnet": Architecture(
        hf.BitNetForCausalLM,
        hf.BitNetConfig,
        _WITHOUT_HEAD_DIM,
        fast=True,
        note="without its quantised linear layers, which contain nothing transcendental",
    ),
    "qwen3": Architecture(hf.Qwen3ForCausalLM, hf.Qwen3Config, _DECODER),
    "gemma3": Architecture(
        hf.Gemma3ForCausalLM,
        hf.Gemma3TextConfig,
        {
            **_DECODER,
            "tie_word_embeddings": False,
            "query_pre_attn_scalar": 8,
            "sliding_window": 8,
            "layer_types": ["sliding_attention", "full_attention"],
        },
    ),
    "gpt2": Architecture(
        hf.GPT2LMHeadModel,
        hf.GPT2Config,
        {
            "vocab_size": VOCABULARY,
            "n_positions": 64,
            "n_embd": 32,
            "n_layer": 2,
            "n_head": 4,
            "initializer_range": 0.2,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
        fast=True,
    ),
    "bert": Architecture(
        hf.BertForSequenceClassification,
        hf.BertConfig,
        {**_ENCODER, "vocab_size": VOCABULARY, "max_position_embeddings": 64, "num_labels": 5},
        generates=False,
        fast=True,
    ),
    "vit": Architecture(
        hf.ViTForImageClassification,
        hf.ViTConfig,
        {**_ENCODER, "image_size": 16, "patch_size": 4, "num_labels": 5},
        feed=images,
        generates=False,
    ),
    "whisper": Architecture(
        hf.models.whisper.modeling_whisper.WhisperEncoder,
        hf.WhisperConfig,
        {
            "vocab_size": VOCABULARY,
            "num_mel_bins": 16,
            "d_model": 32,
            "encoder_layers": 2,
            "encoder_attention_heads": 4,
            "encoder_ffn_dim": 48,
            "max_source_positions": 24,
            "init_std": 0.2,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "decoder_start_token_id": 1,
        },
        feed=spectrograms,
        output="last_hidden_state",
        generates=False,
        note="the encoder",
    ),
    "mixtral": Architecture(hf.MixtralForCausalLM, hf.MixtralConfig, _EXPERTS, experts=True),
    "qwen3_moe": Architecture(
        hf.Qwen3MoeForCausalLM,
        hf.Qwen3MoeConfig,
        {**_EXPERTS, "moe_intermediate_size": 24},
        experts=True,
    ),
    "mamba": Architecture(
        hf.MambaForCausalLM,
        hf.MambaConfig,
        {**_RECURRENT, "time_step_rank": 4, "tie_word_embeddings": False},
        attentions=(NO_CHOICE,),
        fast=True,
    ),
    "mamba2": Architecture(
        hf.Mamba2ForCausalLM,
        hf.Mamba2Config,
        {**_RECURRENT, "num_heads": 8, "head_dim": 8, "n_groups": 2, "chunk_size": 8},
        attentions=(NO_CHOICE,),
    ),
    "rwkv": Architecture(
        hf.RwkvForCausalLM,
        hf.RwkvConfig,
        {
            "vocab_size": VOCABULARY,
            "hidden_size": 32,
            "attention_hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "context_length": 64,
        },
        feed=plain_tokens,
        attentions=(NO_CHOICE,),
    ),
    "gpt_neox": Architecture(hf.GPTNeoXForCausalLM, hf.GPTNeoXConfig, _WITHOUT_HEAD_DIM),
    "t5": Architecture(
        hf.T5ForConditionalGeneration,
        hf.T5Config,
        {
            "vocab_size": VOCABULARY,
            "d_model": 32,
            "d_kv": 8,
            "d_ff": 48,
            "num_layers": 2,
            "num_heads": 4,
            "tie_word_embeddings": False,
            "pad_token_id": 0,
            "eos_token_id": 1,
            "decoder_start_token_id": 0,
        },
        feed=text_pairs,
        note="encoder and decoder",
    ),
    "gpt_oss": Architecture(
        hf.GptOssForCausalLM,
        hf.GptOssConfig,
        {
            **_EXPERTS,
            "sliding_window": 8,
            "layer_types": ["sliding_attention", "full_attention"],
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        },
        attentions=("eager",),
        experts=True,
        note="transformers refuses sdpa for its attention sinks",
    ),
    "qwen3_next": Architecture(
        hf.Qwen3NextForCausalLM,
        hf.Qwen3NextConfig,
        {
            **_DECODER,
            "linear_conv_kernel_dim": 4,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "moe_intermediate_size": 24,
            "shared_expert_intermediate_size": 24,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "layer_types": ["linear_attention", "full_attention"],
        },
        experts=True,
    ),
}
