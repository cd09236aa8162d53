"""Which models ExLlamaV2 0.3.2 and ExLlamaV3 1.6.5 can run: architectures and formats of weights.

ExLlamaV2 warns about an architecture that it does not know and loads it as Llama, so that it answers nonsense; it knows
nothing of the keys that transformers 5 writes either. Both are refused here, before a library sees the folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from el4ner.errors import ModelError
from el4ner.models.legacy import legacy_config
from el4ner.models.shapes import read_config

__all__ = ["EXLLAMAV2", "EXLLAMAV3", "ExllamaEngine", "WeightFormat", "check_architecture", "check_config", "format_of"]

ExllamaEngine = Literal["exllamav2", "exllamav3"]

EXLLAMAV2: Final = frozenset(
    {
        "CohereForCausalLM",
        "Cohere2ForCausalLM",
        "DbrxForCausalLM",
        "GemmaForCausalLM",
        "Gemma2ForCausalLM",
        "Gemma3ForConditionalGeneration",
        "GemmoeForCausalLM",
        "Glm4ForCausalLM",
        "GPT2LMHeadModel",
        "GPTBigCodeForCausalLM",
        "GraniteForCausalLM",
        "IndexForCausalLM",
        "InternLM2ForCausalLM",
        "LlamaForCausalLM",
        "LlavaForConditionalGeneration",
        "MiniCPMForCausalLM",
        "MistralForCausalLM",
        "Mistral3ForConditionalGeneration",
        "MixtralForCausalLM",
        "OrionForCausalLM",
        "Phi3ForCausalLM",
        "Qwen2ForCausalLM",
        "Qwen2VLForConditionalGeneration",
        "Qwen2_5_VLForConditionalGeneration",
        "Qwen3ForCausalLM",
        "Qwen3MoeForCausalLM",
        "Starcoder2ForCausalLM",
        "YiForCausalLM",
    }
)
"""``exllamav2/architecture.py``. Gemma 3 is there with its vision tower alone: not ``Gemma3ForCausalLM`` (270M, 1B)."""

EXLLAMAV3: Final = frozenset(
    {
        "AfmoeForCausalLM",
        "ApertusForCausalLM",
        "ArceeForCausalLM",
        "BailingMoeV3ForCausalLM",
        "CohereForCausalLM",
        "Cohere2ForCausalLM",
        "DeciLMForCausalLM",
        "DeepseekV3ForCausalLM",
        "DeepseekV4ForCausalLM",
        "Dots1ForCausalLM",
        "Ernie4_5_ForCausalLM",
        "Ernie4_5_MoeForCausalLM",
        "Exaone4ForCausalLM",
        "Gemma2ForCausalLM",
        "Gemma3ForCausalLM",
        "Gemma3ForConditionalGeneration",
        "Gemma4ForConditionalGeneration",
        "Gemma4UnifiedForConditionalGeneration",
        "Glm4ForCausalLM",
        "Glm4MoeForCausalLM",
        "Glm4MoeLiteForCausalLM",
        "Glm4vForConditionalGeneration",
        "Glm4vMoeForConditionalGeneration",
        "Glm5NextForConditionalGeneration",
        "GlmMoeDsaForCausalLM",
        "GptOssForCausalLM",
        "HCXVisionV2ForCausalLM",
        "HYV3ForCausalLM",
        "HyperCLOVAXForCausalLM",
        "IQuestCoderForCausalLM",
        "KimiLinearForCausalLM",
        "LagunaForCausalLM",
        "Lfm2ForCausalLM",
        "Lfm2MoeForCausalLM",
        "Lfm2VlForConditionalGeneration",
        "LlamaForCausalLM",
        "MiMoForCausalLM",
        "MiMoV2ForCausalLM",
        "MiniMaxM2ForCausalLM",
        "Ministral3ForCausalLM",
        "MistralForCausalLM",
        "Mistral3ForConditionalGeneration",
        "MixtralForCausalLM",
        "MuseGlimmerForConditionalGeneration",
        "NemotronHForCausalLM",
        "NemotronH_Omni_Reasoning_V3",
        "Olmo3ForCausalLM",
        "OlmoHybridForCausalLM",
        "Phi3ForCausalLM",
        "Qwen2ForCausalLM",
        "Qwen2_5_VLForConditionalGeneration",
        "Qwen3ForCausalLM",
        "Qwen3MoeForCausalLM",
        "Qwen3NextForCausalLM",
        "Qwen3VLForConditionalGeneration",
        "Qwen3VLMoeForConditionalGeneration",
        "Qwen3_5ForCausalLM",
        "Qwen3_5ForConditionalGeneration",
        "Qwen3_5MoeForCausalLM",
        "Qwen3_5MoeForConditionalGeneration",
        "Qwen4ExpForConditionalGeneration",
        "SeedOssForCausalLM",
        "SmolLM3ForCausalLM",
        "SolarOpenForCausalLM",
        "Spark2_5ForCausalLM",
        "Step3p5ForCausalLM",
        "Step3p7ForConditionalGeneration",
    }
)
"""``exllamav3/architecture/architectures.py``, without the draft models, which cannot answer alone."""

_LISTS: Final[Mapping[ExllamaEngine, frozenset[str]]] = {"exllamav2": EXLLAMAV2, "exllamav3": EXLLAMAV3}
_OTHER: Final[Mapping[ExllamaEngine, ExllamaEngine]] = {"exllamav2": "exllamav3", "exllamav3": "exllamav2"}
_FORMATS: Final[Mapping[ExllamaEngine, frozenset[str]]] = {
    "exllamav2": frozenset({"exl2", "gptq", "plain"}),
    "exllamav3": frozenset({"exl3", "plain"}),
}
_DTYPE_BITS: Final = {"float16": 16.0, "bfloat16": 16.0, "float32": 32.0, "float64": 64.0}


@dataclass(frozen=True, slots=True)
class WeightFormat:
    """``name``: ``plain`` (no quantisation), ``exl2``, ``exl3``, ``gptq``, or whatever the configuration calls it.

    ``bits`` and ``head_bits``: of a parameter, where the configuration says; the head's only for EXL2 and EXL3.
    """

    name: str
    bits: float | None = None
    head_bits: float | None = None


def format_of(config: Mapping[str, Any], folder: Path | None = None) -> WeightFormat:
    """How weights are stored, by ``config.json``; ``folder`` for older GPTQ models, which say so in another file."""
    quantised = config.get("quantization_config")
    if not isinstance(quantised, Mapping):
        if folder is not None and (folder / "quantize_config.json").is_file():
            return WeightFormat("gptq")
        dtype = config.get("dtype") or config.get("torch_dtype") or "float16"
        return WeightFormat("plain", _DTYPE_BITS.get(str(dtype), 16.0))
    return WeightFormat(
        str(quantised.get("quant_method", "unnamed")).lower(),
        _number(quantised.get("bits")),
        _number(quantised.get("head_bits")),
    )


def check_architecture(folder: Path, engine: ExllamaEngine) -> str:
    """Look at a folder's ``config.json``; weights are not opened.

    Returns:
        The architecture's name.

    Raises:
        ModelError: the engine cannot run it, or would run it wrongly. Says which engine can.
    """
    return check_config(read_config(folder), folder, engine)


def check_config(config: Mapping[str, Any], folder: Path, engine: ExllamaEngine) -> str:
    """As :func:`check_architecture`, of a configuration that has been read."""
    listed = config.get("architectures")
    if not isinstance(listed, list) or len(listed) != 1 or not isinstance(listed[0], str):
        raise ModelError(f"{folder / 'config.json'}: architectures has to name exactly one, not {listed!r}")
    architecture = listed[0]
    if architecture not in _LISTS[engine] or (engine == "exllamav2" and _is_other_llava(architecture, config)):
        able: str = _OTHER[engine] if architecture in _LISTS[_OTHER[engine]] else "transformers"
        raise ModelError(f"{folder}: {engine} does not support {architecture}: choose engine {able!r} or another model")
    stored = format_of(config, folder).name
    if stored not in _FORMATS[engine]:
        other = _OTHER[engine]
        able = f"choose engine {other!r}" if stored in _FORMATS[other] else "take the model's unquantised weights"
        raise ModelError(f"{folder}: {engine} does not read weights in {stored.upper()}: {able}")
    if engine == "exllamav2" and legacy_config(config) != config:
        raise ModelError(
            f"{folder / 'config.json'}: exllamav2 does not read rope_parameters, as transformers 5 writes them, and "
            "would place tokens wrongly: let el4ner prepare the model, or quantise it with `el4ner models quantize`"
        )
    return architecture


def _is_other_llava(architecture: str, config: Mapping[str, Any]) -> bool:
    """Of the Llava models ExLlamaV2 knows Pixtral alone."""
    if architecture != "LlavaForConditionalGeneration":
        return False
    vision = config.get("vision_config")
    return not (isinstance(vision, Mapping) and vision.get("model_type") == "pixtral")


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
