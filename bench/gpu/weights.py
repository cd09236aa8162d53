"""Models to measure: the packaged one, and models with random weights, made here because nothing can be fetched.

Random weights say nothing about answers. Reading and writing with them costs what it costs with any others of that
shape: no engine here leaves out a zero.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gpu.record import write_json
from gpu.shapes import GROUP, Shape, gptq_tensors

if TYPE_CHECKING:
    import torch

__all__ = ["padded_tokenizer", "random_model"]

SEED: Final = 7
ZERO_POINT: Final = 0x77777777
"""Seven in every place: the library reads it as eight, so that weights of 0 to 15 lie around nothing."""
SCALE: Final = 0.0043
"""Numbers from 0 to 15 spread by 4.6: this gives weights that spread by 0.02, as others do."""
SPREAD: Final = 0.02
TOKENIZER_FILES: Final = ("chat_template.jinja", "tokenizer_config.json")


def padded_tokenizer(tokenizer: dict[str, Any], size: int) -> dict[str, Any]:
    """``tokenizer.json`` with pieces up to ``size``, so that whatever a random model writes is a piece of text.

    Raises:
        ValueError: it has more than ``size`` already.
    """
    vocabulary = dict(tokenizer["model"]["vocab"])
    known = {*vocabulary.values(), *(token["id"] for token in tokenizer.get("added_tokens", ()))}
    if max(known) >= size:
        raise ValueError(f"the tokenizer has {max(known) + 1} tokens, the model {size}")
    vocabulary.update((f"<unused-{number}>", number) for number in range(size) if number not in known)
    return {**tokenizer, "model": {**tokenizer["model"], "vocab": vocabulary}}


def random_model(
    folder: Path, shape: Shape, tokenizer: Path, *, device: str, bits: int = 16, spread: float = SPREAD
) -> None:
    """Write a model of ``shape`` with random weights and the tokenizer of another folder.

    Args:
        folder: is made, or emptied.
        shape: of the model.
        tokenizer: a folder with ``tokenizer.json``.
        device: where random numbers are drawn.
        bits: 16 (float16), or 4 (packed as GPTQ has it; embeddings and output layer stay at 16).
        spread: of the weights; more makes a model surer of its answers.
    """
    import torch
    from safetensors.torch import save_file

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    generator = torch.Generator(device=device).manual_seed(SEED)

    def drawn(*size: int) -> torch.Tensor:
        values = torch.empty(size, dtype=torch.float16, device=device)
        return values.normal_(0, spread, generator=generator).cpu()

    def whole(*size: int) -> torch.Tensor:
        return torch.randint(-(2**31), 2**31, size, dtype=torch.int64, generator=generator, device=device).int().cpu()

    index = {}
    for number, tensors in enumerate(_shards(shape, bits, drawn, whole)):
        name = f"model-{number:05}.safetensors"
        save_file(tensors, folder / name, metadata={"format": "pt"})
        index.update(dict.fromkeys(tensors, name))
    write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": index})
    write_json(folder / "config.json", _config(shape, bits))
    ends = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    write_json(folder / "generation_config.json", ends)
    text = json.loads((tokenizer / "tokenizer.json").read_text(encoding="utf-8"))
    (folder / "tokenizer.json").write_text(
        json.dumps(padded_tokenizer(text, shape.vocabulary), ensure_ascii=False), encoding="utf-8"
    )
    for name in TOKENIZER_FILES:
        if (tokenizer / name).is_file():
            shutil.copy(tokenizer / name, folder / name)
    # What the weights are is known without reading 15 GB again: engines take their digest from here.
    digest = hashlib.sha256(f"{SEED} {shape} {bits} {spread}".encode()).hexdigest()
    write_json(folder / "el4ner-model.json", {"files": {"model.safetensors": {"sha256": digest, "size": 0}}})


def _shards(
    shape: Shape,
    bits: int,
    drawn: Callable[..., torch.Tensor],
    whole: Callable[..., torch.Tensor],
) -> Iterator[dict[str, torch.Tensor]]:
    """A file a layer, and one for what is outside of them."""
    import torch

    ones = torch.ones(shape.hidden, dtype=torch.float16)
    outside = {"model.embed_tokens.weight": drawn(shape.vocabulary, shape.hidden), "model.norm.weight": ones.clone()}
    if not shape.tied:
        outside["lm_head.weight"] = drawn(shape.vocabulary, shape.hidden)
    yield outside
    for layer in range(shape.layers):
        at = f"model.layers.{layer}."
        tensors = {
            f"{at}input_layernorm.weight": ones.clone(),
            f"{at}post_attention_layernorm.weight": ones.clone(),
        }
        for name, inputs, outputs in shape.linears():
            if bits == 16:
                tensors[f"{at}{name}.weight"] = drawn(outputs, inputs)
            else:
                sizes = gptq_tensors(inputs, outputs)
                tensors[f"{at}{name}.qweight"] = whole(*sizes["qweight"][0])
                tensors[f"{at}{name}.qzeros"] = torch.full(sizes["qzeros"][0], ZERO_POINT, dtype=torch.int32)
                tensors[f"{at}{name}.scales"] = torch.full(sizes["scales"][0], SCALE, dtype=torch.float16)
            if shape.bias and name.endswith(("q_proj", "k_proj", "v_proj")):
                tensors[f"{at}{name}.bias"] = drawn(outputs)
        yield tensors


def _config(shape: Shape, bits: int) -> dict[str, Any]:
    config: dict[str, Any] = {
        "architectures": ["Qwen2ForCausalLM" if shape.bias else "LlamaForCausalLM"],
        "model_type": "qwen2" if shape.bias else "llama",
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "vocab_size": shape.vocabulary,
        "tie_word_embeddings": shape.tied,
        "max_position_embeddings": shape.positions,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1_000_000.0,
        "hidden_act": "silu",
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
        "torch_dtype": "float16",
    }
    if shape.bias:
        config |= {"use_sliding_window": False, "attention_dropout": 0.0}
    if bits == 4:
        config["quantization_config"] = {
            "quant_method": "gptq",
            "bits": 4,
            "group_size": GROUP,
            "desc_act": False,
            "sym": True,
        }
    return config
