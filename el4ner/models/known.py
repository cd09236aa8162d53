"""Shapes and licences of the hub's models that the presets name, so that what fits is known before a download.

Sizes are those of each model's public ``config.json``, as public copies give them: litgpt's ``litgpt/config.py``, which
names the file that each entry was taken from (Qwen, SmolLM2, Phi-4), and transformers' ``Glm4Config``, whose defaults
are GLM-4-9B-0414's. Licences are those of the model cards.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from el4ner.models.shapes import ModelShape

__all__ = ["KNOWN", "KnownModel"]


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A model of the hub, by its name there."""

    name: str
    architecture: str
    licence: str
    shape: ModelShape


_QWEN_25: Final = "Qwen2ForCausalLM"
_MODELS: Final = (
    KnownModel(
        "zai-org/GLM-4-9B-0414",
        "Glm4ForCausalLM",
        "MIT",
        ModelShape(4096, 13_696, 40, 32, 2, 128, 151_552, 32_768),
    ),
    KnownModel(
        "microsoft/phi-4",
        "Phi3ForCausalLM",
        "MIT",
        ModelShape(5120, 17_920, 40, 40, 10, 128, 100_352, 16_384),
    ),
    KnownModel(
        "Qwen/Qwen2.5-14B-Instruct",
        _QWEN_25,
        "Apache-2.0",
        ModelShape(5120, 13_824, 48, 40, 8, 128, 152_064, 32_768),
    ),
    KnownModel(
        "Qwen/Qwen2.5-7B-Instruct",
        _QWEN_25,
        "Apache-2.0",
        ModelShape(3584, 18_944, 28, 28, 4, 128, 152_064, 32_768),
    ),
    KnownModel(
        "Qwen/Qwen2.5-1.5B-Instruct",
        _QWEN_25,
        "Apache-2.0",
        ModelShape(1536, 8_960, 28, 12, 2, 128, 151_936, 32_768, tied=True),
    ),
    KnownModel(
        "Qwen/Qwen3-4B-Instruct-2507",
        "Qwen3ForCausalLM",
        "Apache-2.0",
        ModelShape(2560, 9_728, 36, 32, 8, 128, 151_936, 262_144, tied=True),
    ),
    KnownModel(
        "HuggingFaceTB/SmolLM2-1.7B-Instruct",
        "LlamaForCausalLM",
        "Apache-2.0",
        ModelShape(2048, 8_192, 24, 32, 32, 64, 49_152, 8_192, tied=True),
    ),
)
KNOWN: Final[Mapping[str, KnownModel]] = MappingProxyType({model.name: model for model in _MODELS})
