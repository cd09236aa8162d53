"""What the ExLlama engines are given: models that they run, in configurations that they read rightly."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import orjson
import pytest

from el4ner.errors import ModelError
from el4ner.models.architectures import EXLLAMAV2, EXLLAMAV3, check_architecture, format_of
from el4ner.models.known import KNOWN
from el4ner.models.legacy import legacy_config, legacy_folder


def write(folder: Path, config: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_bytes(orjson.dumps(config))
    return folder


def config_of(architecture: str, **more: Any) -> dict[str, Any]:
    return {"architectures": [architecture], "rope_theta": 10_000.0, **more}


@pytest.mark.parametrize(
    ("architecture", "more", "engine"),
    [
        ("Glm4ForCausalLM", {}, "exllamav2"),
        ("Phi3ForCausalLM", {"quantization_config": {"quant_method": "exl2", "bits": 4.0}}, "exllamav2"),
        ("Qwen2ForCausalLM", {"quantization_config": {"quant_method": "gptq", "bits": 4}}, "exllamav2"),
        ("Qwen2ForCausalLM", {"quantization_config": {"quant_method": "exl3", "bits": 4.0}}, "exllamav3"),
        ("Gemma3ForCausalLM", {}, "exllamav3"),
        ("LlavaForConditionalGeneration", {"vision_config": {"model_type": "pixtral"}}, "exllamav2"),
    ],
)
def test_what_an_engine_runs_passes(tmp_path: Path, architecture: str, more: dict[str, Any], engine: Any) -> None:
    assert check_architecture(write(tmp_path, config_of(architecture, **more)), engine) == architecture


@pytest.mark.parametrize(
    ("config", "engine", "message"),
    [
        (config_of("ChatGLMModel"), "exllamav2", "does not support ChatGLMModel: choose engine 'transformers'"),
        (config_of("Gemma3ForCausalLM"), "exllamav2", "Gemma3ForCausalLM: choose engine 'exllamav3'"),
        (config_of("GraniteForCausalLM"), "exllamav3", "GraniteForCausalLM: choose engine 'exllamav2'"),
        (config_of("LlavaForConditionalGeneration"), "exllamav2", "does not support Llava"),
        (
            config_of("LlamaForCausalLM", quantization_config={"quant_method": "exl3"}),
            "exllamav2",
            "weights in EXL3: choose engine 'exllamav3'",
        ),
        (
            config_of("LlamaForCausalLM", quantization_config={"quant_method": "exl2"}),
            "exllamav3",
            "weights in EXL2: choose engine 'exllamav2'",
        ),
        (
            config_of("LlamaForCausalLM", quantization_config={"quant_method": "gptq"}),
            "exllamav3",
            "weights in GPTQ: choose engine 'exllamav2'",
        ),
        (
            config_of("LlamaForCausalLM", quantization_config={"quant_method": "awq"}),
            "exllamav2",
            "weights in AWQ: take the model's unquantised weights",
        ),
        ({"architectures": ["A", "B"]}, "exllamav2", "exactly one"),
        ({}, "exllamav3", "exactly one"),
        (
            {"architectures": ["LlamaForCausalLM"], "rope_parameters": {"rope_theta": 100_000.0}},
            "exllamav2",
            "does not read rope_parameters",
        ),
    ],
)
def test_what_it_would_run_wrongly_is_refused_in_a_line(
    tmp_path: Path, config: dict[str, Any], engine: Any, message: str
) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        check_architecture(write(tmp_path, config), engine)
    assert "\n" not in str(caught.value)


def test_an_old_gptq_model_is_known_by_its_own_file(tmp_path: Path) -> None:
    (tmp_path / "quantize_config.json").write_bytes(b"{}")
    assert format_of({}, tmp_path).name == "gptq"
    with pytest.raises(ModelError, match="GPTQ"):
        check_architecture(write(tmp_path, config_of("LlamaForCausalLM")), "exllamav3")


def test_the_format_tells_the_bits() -> None:
    stored = format_of({"quantization_config": {"quant_method": "EXL2", "bits": 4.25, "head_bits": 6}})
    assert (stored.name, stored.bits, stored.head_bits) == ("exl2", 4.25, 6.0)
    assert format_of({"torch_dtype": "float32"}).bits == 32
    assert format_of({"dtype": "bfloat16"}).bits == 16


def test_every_model_that_the_presets_name_is_supported() -> None:
    assert {model.architecture for model in KNOWN.values()} <= EXLLAMAV2 & EXLLAMAV3


def test_the_lists_are_the_installed_libraries_own() -> None:
    """Read as text: importing either library compiles it."""
    for library, names in (("exllamav2", EXLLAMAV2), ("exllamav3", EXLLAMAV3)):
        found = importlib.util.find_spec(library)
        if found is None or not found.submodule_search_locations:
            continue
        folder = Path(found.submodule_search_locations[0])
        files = sorted((folder / "architecture").glob("*.py")) or [folder / "architecture.py"]
        text = "\n".join(file.read_text(encoding="utf-8") for file in files)
        assert not {name for name in names if not re.search(rf'"{re.escape(name)}"', text)}


def test_rope_parameters_become_what_was_written_before_transformers_5() -> None:
    config = {"a": 1, "rope_parameters": {"rope_type": "default", "rope_theta": 100_000.0}}
    assert legacy_config(config) == {"a": 1, "rope_theta": 100_000.0}
    scaled = {
        "rope_type": "llama3",
        "rope_theta": 5e5,
        "factor": 8.0,
        "original_max_position_embeddings": 8192,
        "partial_rotary_factor": 0.5,
    }
    made = legacy_config({"rope_parameters": scaled})
    assert (made["rope_theta"], made["partial_rotary_factor"]) == (5e5, 0.5)
    assert made["rope_scaling"] == {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192}


def test_gemma_has_one_base_for_each_kind_of_layer() -> None:
    whole, sliding = {"rope_theta": 1e6, "rope_type": "default"}, {"rope_theta": 1e4, "rope_type": "default"}
    made = legacy_config({"rope_parameters": {"full_attention": whole, "sliding_attention": sliding}})
    assert made == {"rope_theta": 1e6, "rope_local_base_freq": 1e4}


def test_an_older_configuration_stays_as_it_is() -> None:
    config = {"rope_theta": 1e6, "rope_scaling": {"type": "yarn", "factor": 4.0}, "text_config": {"rope_theta": 1.0}}
    assert legacy_config(config) == config


def test_a_scaling_that_is_named_twice_is_named_once() -> None:
    made = legacy_config({"rope_scaling": {"type": "yarn", "rope_type": "yarn", "factor": 4.0}})
    assert made["rope_scaling"] == {"rope_type": "yarn", "factor": 4.0}


def test_a_folder_that_reads_wrongly_is_replaced_by_one_that_reads_rightly(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", {"architectures": ["LlamaForCausalLM"], "rope_parameters": {"rope_theta": 7.0}})
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "tokenizer.json").write_bytes(b"{}")
    made = legacy_folder(folder, tmp_path / "cache")
    assert check_architecture(made, "exllamav2") == "LlamaForCausalLM"
    assert orjson.loads((made / "config.json").read_bytes())["rope_theta"] == 7.0
    assert (made / "model.safetensors").read_bytes() == b"weights"
    assert legacy_folder(folder, tmp_path / "cache") == made
    (made / "tokenizer.json").unlink()
    (made / "tokenizer.json").symlink_to(tmp_path / "gone")
    assert (legacy_folder(folder, tmp_path / "cache") / "tokenizer.json").read_bytes() == b"{}"
    old = write(tmp_path / "old", config_of("LlamaForCausalLM"))
    assert legacy_folder(old, tmp_path / "cache") == old
