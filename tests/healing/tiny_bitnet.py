"""BitNets of a few thousand random numbers, in each of the spellings of transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import (
    BitNetConfig,
    BitNetForCausalLM,
    BitNetQuantConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)
from transformers.integrations.bitnet import AutoBitLinear, BitLinear, pack_weights

from odp.healing.bit_linear import adapted_layers, see_quantised, ternary_view

VOCABULARY = 60
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
KINDS = ["online", "offline", "packed"]
WORDS = ["<s>", "</s>", "<unk>", *(f"w{number}" for number in range(VOCABULARY - 3))]


def layer(kind: str, *, bias: bool = False, norm: bool = False, seed: int = 0) -> Any:
    """A bit-linear layer from 24 to 16 channels; the three kinds have the same effective weight."""
    torch.manual_seed(seed)
    weight, added = torch.randn(16, 24) / 5, torch.randn(16)
    online = AutoBitLinear(24, 16, bias=bias, online_quant=True, use_rms_norm=norm)
    online.weight.data = weight
    if bias:
        online.bias.data = added
    return online if kind == "online" else respelled(online, kind)


def respelled(online: Any, kind: str) -> Any:
    """An online layer as an offline or packed one, as a converter of checkpoints would write it."""
    view = ternary_view(online)
    out, inner = view.signs.shape
    bias = view.bias is not None
    if kind == "offline":
        made: Any = AutoBitLinear(inner, out, bias=bias)
        made.weight.data = view.signs.float()
        made.weight_scale.fill_(view.scale)
        if bias:
            made.bias.data = view.bias / view.scale
    else:
        made = BitLinear(inner, out, bias=bias, dtype=torch.float32)
        made.weight.copy_(pack_weights(view.signs.clone()))
        made.weight_scale.fill_(1 / view.scale)
        if bias:
            made.bias.copy_(view.bias)
    made.rms_norm = online.rms_norm
    return made.requires_grad_(False)


def bitnet(kind: str = "online", *, layers: int = 2, hidden: int = 32, seed: int = 0) -> Any:
    """A BitNet in evaluation mode."""
    torch.manual_seed(seed)
    model: Any = BitNetForCausalLM(
        BitNetConfig(
            vocab_size=VOCABULARY,
            hidden_size=hidden,
            intermediate_size=48,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=64,
            initializer_range=0.2,
            bos_token_id=0,
            eos_token_id=1,
            tie_word_embeddings=True,
            attn_implementation="eager",
        )
    )
    for path, linear in list(model.named_modules()):
        if isinstance(linear, nn.Linear) and path != "lm_head":
            made: Any = AutoBitLinear(
                linear.in_features, linear.out_features, bias=False, online_quant=True
            )
            made.weight = linear.weight
            model.set_submodule(path, made if kind == "online" else respelled(made, kind))
    model.config.quantization_config = BitNetQuantConfig(
        modules_to_not_convert=["lm_head"],
        linear_class="bitlinear" if kind == "packed" else "autobitlinear",
        quantization_mode="online" if kind == "online" else "offline",
    )
    return model.eval()


def adapted(model: Any, *, rank: int = 4, std: float = 0.1, targets: Any = None) -> Any:
    """The model with a mergeable adapter that does something."""
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets or ATTENTION)
    found = get_peft_model(model, see_quantised(config)).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for one in adapted_layers(found):
            up = one.lora_B["default"].weight
            up.copy_(std * torch.randn(up.shape, generator=generator))
    return found


def tokens(count: int = 24, batch: int = 2, seed: int = 0) -> torch.Tensor:
    """Random ids (batch, count)."""
    return torch.randint(VOCABULARY, (batch, count), generator=torch.Generator().manual_seed(seed))


def logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """Logits (batch, tokens, vocabulary), without gradients or compiling."""
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        found: torch.Tensor = model(input_ids=ids, use_cache=False).logits
    return found


def relative(found: torch.Tensor, reference: torch.Tensor) -> float:
    """Relative l2 difference."""
    return float((found.double() - reference.double()).norm() / reference.double().norm())


def tokenizer() -> Any:
    """One token a word."""
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, "<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def save(folder: Path, model: Any) -> Path:
    """A folder that `load_language_model` reads."""
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def llama() -> Any:
    """A model without BitNet layers, whose linear layers have the same names."""
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=64,
            bos_token_id=0,
            eos_token_id=1,
        )
    ).eval()
