"""Tiny causal language models with random weights: for tests of what engines do with a model, in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

CONTROL = ("<pad>", "<bos>", "<eos>", "<|im_start|>", "<|im_end|>")
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SHAPE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "head_dim": 8,
    "max_position_embeddings": 2048,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    # Large weights: random models are else so sure of nothing that a wrong mask would not show.
    "initializer_range": 0.6,
}


def byte_tokenizer(*, template: str | None = None) -> PreTrainedTokenizerFast:
    """Every byte is a token; some pairs of letters are merged, so that cutting a text elsewhere changes its tokens."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("i", "n"), ("e", "r"), ("o", "n"), ("Ġ", "p"), ("a", "n")]
    pieces = [*CONTROL, *letters, *("".join(pair) for pair in merges)]
    backend = Tokenizer(models.BPE(vocab={piece: number for number, piece in enumerate(pieces)}, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in CONTROL])
    backend.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>"
    )
    tokenizer.chat_template = template
    return tokenizer


def tiny_llama(folder: Path, *, layers: int = 2, **other: Any) -> Path:
    """Llama's architecture with grouped query heads and a chat template. ``other``: numbers of its shape."""
    tokenizer = byte_tokenizer(template=TEMPLATE)
    torch.manual_seed(1)
    shape = {**SHAPE, "num_key_value_heads": 2, "num_hidden_layers": layers, **other}
    config = LlamaConfig(vocab_size=len(tokenizer), tie_word_embeddings=True, **shape)
    return _save(folder, LlamaForCausalLM(config), tokenizer)


def tiny_gemma3(folder: Path, *, window: int = 16, layers: int = 2) -> Path:
    """Gemma 3's architecture: sliding and full attention in turn, no chat template."""
    tokenizer = byte_tokenizer()
    torch.manual_seed(2)
    config = Gemma3TextConfig(
        vocab_size=len(tokenizer),
        num_key_value_heads=1,
        sliding_window=window,
        layer_types=["sliding_attention", "full_attention"] * (layers // 2),
        query_pre_attn_scalar=8,
        **{**SHAPE, "num_hidden_layers": layers},
    )
    return _save(folder, Gemma3ForCausalLM(config), tokenizer)


def _save(folder: Path, model: Any, tokenizer: PreTrainedTokenizerFast) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
