"""Models as numbers: parameters, operations and bytes a token, and the tensors of a model at 4 bits. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

__all__ = ["GROUP", "SEVEN", "TINY", "Shape", "gptq_tensors"]

GROUP: Final = 128
"""Inputs that share a scale and a zero, in a model at 4 bits."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A decoder of the Llama family (``bias``: of the queries, keys and values, as Qwen2 has)."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool
    bias: bool
    positions: int = 8192

    @classmethod
    def of(cls, folder: Path) -> Shape:
        """From a model's config.json."""
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        heads = config["num_attention_heads"]
        return cls(
            hidden=config["hidden_size"],
            intermediate=config["intermediate_size"],
            layers=config["num_hidden_layers"],
            heads=heads,
            kv_heads=config.get("num_key_value_heads") or heads,
            head_dim=config.get("head_dim") or config["hidden_size"] // heads,
            vocabulary=config["vocab_size"],
            tied=bool(config.get("tie_word_embeddings", False)),
            bias=config.get("model_type") == "qwen2",
            positions=config["max_position_embeddings"],
        )

    def linears(self) -> Iterator[tuple[str, int, int]]:
        """(name inside the layer, inputs, outputs) of one layer's matrices."""
        yield "self_attn.q_proj", self.hidden, self.heads * self.head_dim
        yield "self_attn.k_proj", self.hidden, self.kv_heads * self.head_dim
        yield "self_attn.v_proj", self.hidden, self.kv_heads * self.head_dim
        yield "self_attn.o_proj", self.heads * self.head_dim, self.hidden
        yield "mlp.gate_proj", self.hidden, self.intermediate
        yield "mlp.up_proj", self.hidden, self.intermediate
        yield "mlp.down_proj", self.intermediate, self.hidden

    @property
    def in_layers(self) -> int:
        """Parameters of all layers' matrices: what every token is multiplied with."""
        return self.layers * sum(inputs * outputs for _, inputs, outputs in self.linears())

    @property
    def parameters(self) -> int:
        """With embeddings and the output layer; without norms and biases."""
        return self.in_layers + (1 if self.tied else 2) * self.vocabulary * self.hidden

    def flop_per_token(self, length: int) -> float:
        """To read one token of a prompt of ``length``: a multiplication and an addition with every parameter of the
        layers, and attention to half of the prompt on average. The output layer is asked about the last token only."""
        attention = 2 * 2 * self.layers * self.heads * self.head_dim * length / 2
        return 2 * self.in_layers + attention

    def cache_bytes_per_token(self, bits: int = 16) -> float:
        """Of the key-value cache."""
        return self.layers * 2 * self.kv_heads * self.head_dim * bits / 8

    def read_bytes(self, bits: float) -> float:
        """Of weights that one decoding step reads: layers at ``bits`` a parameter, the output layer at 16."""
        return self.in_layers * bits / 8 + self.vocabulary * self.hidden * 2

    def facts(self) -> dict[str, Any]:
        """For the results' file."""
        return {
            "parameters": self.parameters,
            "in_layers": self.in_layers,
            "layers": self.layers,
            "hidden": self.hidden,
            "heads": self.heads,
            "kv_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "intermediate": self.intermediate,
            "vocabulary": self.vocabulary,
        }


SEVEN: Final = Shape(
    hidden=3584,
    intermediate=18944,
    layers=28,
    heads=28,
    kv_heads=4,
    head_dim=128,
    vocabulary=152064,
    tied=False,
    bias=True,
    positions=32768,
)
"""Qwen2.5-7B's."""
TINY: Final = Shape(
    hidden=64,
    intermediate=128,
    layers=2,
    heads=4,
    kv_heads=2,
    head_dim=16,
    vocabulary=49152,
    tied=True,
    bias=False,
    positions=4096,
)
"""For trying the benchmark itself where there is no GPU."""


def gptq_tensors(inputs: int, outputs: int, group: int = GROUP) -> dict[str, tuple[tuple[int, int], str]]:
    """The tensors of one matrix at 4 bits, as (shape, type), by the names of the GPTQ format: eight weights in an
    int32, along the inputs; the zeros along the outputs.

    Raises:
        ValueError: the matrix cannot be packed so.
    """
    if inputs % group or inputs % 8 or outputs % 32:
        raise ValueError(f"a matrix of {inputs} × {outputs} cannot be packed at 4 bits in groups of {group}")
    return {
        "qweight": ((inputs // 8, outputs), "int32"),
        "qzeros": ((inputs // group, outputs // 8), "int32"),
        "scales": ((inputs // group, outputs), "float16"),
    }
