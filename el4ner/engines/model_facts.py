"""What is known of a model before it is loaded, or even there: its shape, and what its weights take on a GPU."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from el4ner.engines.exllama.planning import quantized_weight_bytes
from el4ner.engines.exllama.weight_files import weight_bytes
from el4ner.errors import ModelError
from el4ner.models.architectures import format_of
from el4ner.models.known import KNOWN
from el4ner.models.prepare import resolve
from el4ner.models.quantized import QUANTIZED, QuantizedName, quantized_folder
from el4ner.models.shapes import ModelShape, read_config, shape_of

__all__ = ["ModelFacts", "facts_of"]


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """``weights``: bytes on a GPU. ``basis``: ``files``: of the very files; ``arithmetic``: of the shape alone.

    ``format`` and ``bits`` as in :class:`~el4ner.models.architectures.WeightFormat`; ``licence`` where it is known.
    """

    source: str
    shape: ModelShape
    weights: int
    format: str
    bits: float | None
    licence: str | None
    basis: Literal["files", "arithmetic"]
    folder: Path | None


def facts_of(source: str, cache_dir: Path) -> ModelFacts | None:
    """Of a model that is on this machine, that was or could be quantised from one that is, or that the table of known
    models lists. Nothing is fetched, converted or loaded.

    Returns:
        None where nothing is known.

    Raises:
        ModelError: the source is misspelt, or its folder is refused or damaged.
    """
    if not source.startswith(QUANTIZED):
        return _of_base(source, cache_dir)
    folder = quantized_folder(source, cache_dir)
    name = QuantizedName.parse(source)
    if folder is not None:
        base = KNOWN.get(_hub_name(name.source))
        shape = shape_of(read_config(folder), folder / "config.json")
        licence = base.licence if base else None
        return ModelFacts(source, shape, weight_bytes(folder), name.format, name.bits, licence, "files", folder)
    of_base = _of_base(name.source, cache_dir)
    if of_base is None:
        return None
    weights = quantized_weight_bytes(of_base.shape, name.bits, name.head_bits)
    return ModelFacts(source, of_base.shape, weights, name.format, name.bits, of_base.licence, "arithmetic", None)


def _of_base(source: str, cache_dir: Path) -> ModelFacts | None:
    known = KNOWN.get(_hub_name(source))
    try:
        folder = resolve(source, cache_dir)
    except ModelError:
        if known is None:
            raise
        folder = None
    if folder is not None:
        config = read_config(folder)
        stored = format_of(config, folder)
        shape = shape_of(config, folder / "config.json")
        licence = known.licence if known else None
        return ModelFacts(source, shape, weight_bytes(folder), stored.name, stored.bits, licence, "files", folder)
    if known is None:
        return None
    heads = known.shape.embedding_parameters
    weights = (known.shape.decoder_parameters + heads + known.shape.norm_parameters) * 2
    return ModelFacts(source, known.shape, weights, "plain", 16.0, known.licence, "arithmetic", None)


def _hub_name(source: str) -> str:
    return source.partition("@")[0]
