"""The numbers in a model's ``config.json`` that its memory follows from, and how many parameters they make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from el4ner.errors import ModelError

__all__ = ["ModelShape", "read_config", "shape_of"]

_GEMMA3: Final = {"head_dim": 256, "num_attention_heads": 8, "num_key_value_heads": 4, "vocab_size": 262_208}
"""What Gemma 3's configurations may leave out."""


@dataclass(frozen=True, slots=True)
class ModelShape:
    """A decoder with gated feed-forward layers.

    ``context``: the most tokens that it reads. ``tied``: the head's weights are the embeddings. ``experts``: how many
    feed-forward networks a layer has.
    """

    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab_size: int
    context: int
    tied: bool = False
    experts: int = 1

    @property
    def linear_sizes(self) -> tuple[int, ...]:
        """Parameters of a layer's matrices: queries, keys (as many values), output, one of the feed-forward's."""
        queries = self.heads * self.head_dim
        keys = self.kv_heads * self.head_dim
        return (
            self.hidden_size * queries,
            self.hidden_size * keys,
            queries * self.hidden_size,
            self.hidden_size * self.intermediate_size,
        )

    @property
    def decoder_parameters(self) -> int:
        """All that a quantiser packs but for the head."""
        queries, keys, output, feed_forward = self.linear_sizes
        return self.layers * (queries + 2 * keys + output + 3 * self.experts * feed_forward)

    @property
    def embedding_parameters(self) -> int:
        """Of the embeddings, and as many of the head."""
        return self.vocab_size * self.hidden_size

    @property
    def norm_parameters(self) -> int:
        """Norms and biases: a bound."""
        return (
            self.layers * (4 * self.hidden_size + (self.heads + 2 * self.kv_heads) * self.head_dim) + self.hidden_size
        )

    @property
    def parameters(self) -> int:
        """All of them, as a model card counts."""
        heads = 1 if self.tied else 2
        return self.decoder_parameters + heads * self.embedding_parameters + self.layers * 2 * self.hidden_size


def read_config(folder: Path) -> dict[str, Any]:
    """``config.json`` of a model's folder.

    Raises:
        ModelError: it is missing or no JSON object.
    """
    path = folder / "config.json"
    try:
        config = orjson.loads(path.read_bytes())
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error
    except orjson.JSONDecodeError as error:
        raise ModelError(f"{path}: is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise ModelError(f"{path}: is not what a model's folder has under that name")
    return config


def shape_of(config: Mapping[str, Any], where: object) -> ModelShape:
    """The shape that a ``config.json`` gives. Sizes of a vision model's language part may be in its ``text_config``.

    Args:
        config: the file's content.
        where: for messages: the file, or the model's name.

    Raises:
        ModelError: a size is missing, or is no positive whole number.
    """
    inner = config.get("text_config")
    tables = (config, inner) if isinstance(inner, Mapping) else (config,)
    defaults = _GEMMA3 if "Gemma3ForConditionalGeneration" in (config.get("architectures") or ()) else {}

    def number(*names: str, default: int | None = None) -> int:
        for name in names:
            for table in tables:
                value = table.get(name)
                if value is None:
                    continue
                if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                    return value
                raise ModelError(f"{where}: {name} is {value!r}, not a positive whole number")
        known = defaults.get(names[0], default)
        if known is None:
            raise ModelError(f"{where}: has no {names[0]}")
        return known

    hidden = number("hidden_size", "d_model", "n_embd")
    heads = number("num_attention_heads", "n_heads", "n_head")
    experts = number("num_local_experts", "num_experts", default=1)
    inside = number("intermediate_size", "n_inner", default=4 * hidden)
    return ModelShape(
        hidden_size=hidden,
        intermediate_size=number("moe_intermediate_size", default=inside) if experts > 1 else inside,
        layers=number("num_hidden_layers", "n_layers", "n_layer"),
        heads=heads,
        kv_heads=number("num_key_value_heads", default=heads),
        head_dim=number("head_dim", default=max(1, hidden // heads)),
        vocab_size=number("vocab_size"),
        context=number("max_position_embeddings", "max_seq_len", "n_positions", default=2048),
        tied=any(table.get("tie_word_embeddings") is True for table in tables),
        experts=experts,
    )
