"""From a quantised GGUF file to a folder that transformers loads: bfloat16 safetensors, configuration, tokenizer.

Weights are decoded and written one tensor at a time, so that memory holds the largest tensor and no model. The result
equals what transformers itself makes of the file with ``GgufConfig(dequantize=True)``, in a tenth of the time.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from el4ner.errors import ModelError
from el4ner.models.gguf_file import GgufFile
from el4ner.models.gguf_tokenizer import build_tokenizer, special_tokens
from el4ner.models.progress import Progress

__all__ = ["convert"]

Array = npt.NDArray[np.float32]

OUTSIDE_LAYERS: Final = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
IN_LAYERS: Final = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
WITH_BIAS: Final = {"llama": frozenset(), "gemma3": frozenset(), "qwen2": frozenset({"attn_q", "attn_k", "attn_v"})}
"""The parts of a layer that have a bias beside their weight."""
NORMS_AROUND_FFN: Final = {
    "llama": {"ffn_norm": "post_attention_layernorm"},
    "qwen2": {"ffn_norm": "post_attention_layernorm"},
    "gemma3": {
        "post_attention_norm": "post_attention_layernorm",
        "ffn_norm": "pre_feedforward_layernorm",
        "post_ffw_norm": "post_feedforward_layernorm",
    },
}
WRITTEN_FOR: Final = "5.0.0"
"""The version whose configuration format this is. Without it transformers warns of a fault in other models' files."""
GEMMA3_LOCAL_ROPE: Final = 10_000.0
GEMMA3_FULL_ATTENTION_EVERY: Final = 6
"""Neither is in the file: llama.cpp has them in its code, as transformers has."""


def convert(gguf: Path, folder: Path, progress: Progress) -> None:
    """Fill the (existing, empty) ``folder``.

    Raises:
        ModelError: not a GGUF file, or an architecture or tokenizer that is not known here.
    """
    with GgufFile(gguf) as file:
        architecture = file.metadata.get("general.architecture", "")
        if architecture not in CONFIGURATIONS:
            raise ModelError(f"{gguf}: architecture {architecture!r} cannot be converted")
        progress.start("tokenizer", 1)
        _write_tokenizer(file.metadata, folder)
        progress.advance(1)
        progress.done()
        config = CONFIGURATIONS[architecture](file)
        _write_json(folder / "config.json", config)
        ends = {name: config[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
        _write_json(folder / "generation_config.json", ends)
        _write_weights(file, str(architecture), config, folder / "model.safetensors", progress)


def _write_tokenizer(metadata: Mapping[str, Any], folder: Path) -> None:
    build_tokenizer(metadata).save(str(folder / "tokenizer.json"), pretty=False)
    settings = {
        # Loads tokenizer.json as it is; a class of the model's own would build a part of it anew. (For Qwen2
        # transformers takes its own class whatever is said here, and builds what the file has.)
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        **special_tokens(metadata),
    }
    _write_json(folder / "tokenizer_config.json", settings)
    template = metadata.get("tokenizer.chat_template")
    if template:
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")


def _common(file: GgufFile, architecture: str) -> dict[str, Any]:
    metadata = file.metadata

    def setting(name: str) -> Any:
        return metadata[f"{architecture}.{name}"]

    heads = setting("attention.head_count")
    return {
        "vocab_size": len(metadata["tokenizer.ggml.tokens"]),
        "hidden_size": setting("embedding_length"),
        "intermediate_size": setting("feed_forward_length"),
        "num_hidden_layers": setting("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": metadata.get(f"{architecture}.attention.head_count_kv", heads),
        "head_dim": metadata.get(f"{architecture}.attention.key_length", setting("embedding_length") // heads),
        "max_position_embeddings": setting("context_length"),
        "rms_norm_eps": setting("attention.layer_norm_rms_epsilon"),
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "bos_token_id": metadata["tokenizer.ggml.bos_token_id"],
        "eos_token_id": metadata["tokenizer.ggml.eos_token_id"],
        "pad_token_id": metadata["tokenizer.ggml.padding_token_id"],
        "dtype": "bfloat16",
        "transformers_version": WRITTEN_FOR,
    }


def _llama(file: GgufFile) -> dict[str, Any]:
    base = file.metadata.get("llama.rope.freq_base", 10_000.0)
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        **_common(file, "llama"),
        "rope_parameters": {"rope_type": "default", "rope_theta": base},
    }


def _qwen2(file: GgufFile) -> dict[str, Any]:
    return {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        **_common(file, "qwen2"),
        "rope_parameters": {"rope_type": "default", "rope_theta": file.metadata["qwen2.rope.freq_base"]},
    }


def _gemma3(file: GgufFile) -> dict[str, Any]:
    common = _common(file, "gemma3")
    full = {"rope_type": "default", "rope_theta": file.metadata["gemma3.rope.freq_base"]}
    local = {"rope_type": "default", "rope_theta": GEMMA3_LOCAL_ROPE}
    return {
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        **common,
        "query_pre_attn_scalar": common["head_dim"],
        "hidden_activation": "gelu_pytorch_tanh",
        "sliding_window": file.metadata["gemma3.attention.sliding_window"],
        "layer_types": [
            "sliding_attention" if (layer + 1) % GEMMA3_FULL_ATTENTION_EVERY else "full_attention"
            for layer in range(common["num_hidden_layers"])
        ],
        "rope_parameters": {"full_attention": full, "sliding_attention": local},
    }


CONFIGURATIONS: Final[Mapping[str, Callable[[GgufFile], dict[str, Any]]]] = {
    "llama": _llama,
    "gemma3": _gemma3,
    "qwen2": _qwen2,
}


def _write_weights(
    file: GgufFile, architecture: str, config: Mapping[str, Any], path: Path, progress: Progress
) -> None:
    """A safetensors file: the header's length and the header (JSON: type, shape and place), then the bytes."""
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    sources: list[tuple[str, Callable[[Array], Array] | None]] = []
    offset = 0
    for name, tensor in file.tensors.items():
        target = _target(name, architecture)
        if target is None:
            continue
        size = 2 * math.prod(tensor.shape)
        header[target] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": [offset, offset + size]}
        offset += size
        sources.append((name, _mend(target, architecture, heads, kv_heads)))
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    progress.start("weights", offset)
    with path.open("wb") as out:
        out.write(struct.pack("<Q", len(encoded)))
        out.write(encoded)
        for name, mend in sources:
            pieces = file.pieces(name) if mend is None else iter((mend(file.read(name)),))
            for piece in pieces:
                out.write(_bfloat16(piece).tobytes())
                progress.advance(2 * piece.size)
    progress.done()


def _bfloat16(numbers: Array) -> npt.NDArray[np.uint16]:
    """The upper halves of float32 numbers, rounded to the nearest, and to even between two: as torch rounds them, which
    takes two seconds to import."""
    bits = np.ascontiguousarray(numbers, dtype=np.float32).view(np.uint32)
    rounded = bits >> 16
    rounded &= 1
    rounded += 0x7FFF
    rounded += bits
    rounded >>= 16
    halves = rounded.astype(np.uint16)
    if np.isnan(numbers.sum()):  # rounding would carry into its exponent
        halves[np.isnan(numbers)] = 0x7FC0
    return halves


def _target(name: str, architecture: str) -> str | None:
    """The parameter's name in transformers; None for what it computes itself.

    Raises:
        ModelError: nobody knows that tensor.
    """
    if name == "rope_freqs.weight":
        return None
    stem, _, kind = name.rpartition(".")
    if stem in OUTSIDE_LAYERS and kind == "weight":
        return f"{OUTSIDE_LAYERS[stem]}.weight"
    block, _, rest = stem.partition(".")
    number, _, part = rest.partition(".")
    known = IN_LAYERS | NORMS_AROUND_FFN[architecture]
    fits = kind == "weight" or (kind == "bias" and part in WITH_BIAS[architecture])
    if block != "blk" or part not in known or not fits:
        raise ModelError(f"the file has a tensor {name!r} that a {architecture} model does not have")
    return f"model.layers.{number}.{known[part]}.{kind}"


def _mend(target: str, architecture: str, heads: int, kv_heads: int) -> Callable[[Array], Array] | None:
    """What llama.cpp's converter did to a tensor, undone; None where it did nothing."""
    if architecture == "llama" and target.endswith("q_proj.weight"):
        return lambda weights: _halves_apart(weights, heads)
    if architecture == "llama" and target.endswith("k_proj.weight"):
        return lambda weights: _halves_apart(weights, kv_heads)
    if architecture == "gemma3" and target.endswith("norm.weight"):
        return lambda weights: weights - 1  # there: the factor; in transformers: the factor less one
    return None


def _halves_apart(weights: Array, heads: int) -> Array:
    """llama.cpp interleaves the two halves of a head that rotary embeddings pair; transformers keeps them apart."""
    rows, width = weights.shape
    halves = weights.reshape(heads, rows // heads // 2, 2, width).swapaxes(1, 2)
    return np.ascontiguousarray(halves).reshape(rows, width)


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
