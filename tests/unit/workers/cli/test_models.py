"""``el4ner models``: what fits, and what is missing, as people and programs read it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from el4ner.engines.exllama import planning
from el4ner.engines.exllama.planning import Gpu
from el4ner.quantizing import quantize as quantizing
from el4ner.quantizing.machine import Machine
from workers.cli.app import app

pytestmark = pytest.mark.usefixtures("undisturbed")


@pytest.fixture(autouse=True)
def _no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "gpus_found", list)


def listed(runner: CliRunner, *arguments: str) -> dict[str, list[dict[str, Any]]]:
    result = runner.invoke(app, ["models", "list", "--format", "json", *arguments], catch_exceptions=False)
    assert result.exit_code == 0
    lines: dict[str, list[dict[str, Any]]] = {"model": [], "member": [], "gpu": [], "problem": []}
    for line in result.stdout.splitlines():
        read = json.loads(line)
        lines[read["kind"]].append(read)
    return lines


def test_a_preset_is_planned_for_a_card_that_is_not_here(runner: CliRunner) -> None:
    lines = listed(runner, "--ensemble", "gpu-24gb", "--gpu-gb", "24")
    assert {member["name"] for member in lines["member"]} == {"qwen-7b", "glm-4-9b", "phi-4"}
    for member in lines["member"]:
        assert member["total"] == sum(member["footprint"].values())
        assert (member["gpu"], member["basis"], member["bits"]) == ("cuda:0", "arithmetic", 4.0)
        assert member["licence"] in ("MIT", "Apache-2.0")
    (gpu,) = lines["gpu"]
    assert gpu["used_bytes"] == gpu["context_bytes"] + sum(member["total"] for member in lines["member"])
    assert gpu["left_bytes"] >= 0
    assert not lines["problem"]
    assert lines["model"]


def test_people_see_the_same_as_a_table(runner: CliRunner) -> None:
    shown = runner.invoke(app, ["models", "list", "--ensemble", "gpu-8gb", "--gpu-gb", "8"]).stdout
    assert "quantized:Qwen/Qwen3-4B-Instruct-2507@4.0bpw" in shown
    assert "weights GB" in shown
    assert "these weights are not on this machine" in shown
    assert "cuda:0 (8 GB):" in shown


def test_what_does_not_fit_is_said_and_is_no_failure(runner: CliRunner) -> None:
    result = runner.invoke(app, ["models", "list", "--ensemble", "paper-gpu", "--gpu-gb", "24"])
    assert result.exit_code == 0
    assert "does not fit: models." in result.stdout
    assert "GB too much" in result.stdout
    assert not listed(runner, "--ensemble", "paper-gpu", "--gpu-gb", "24", "--gpu-gb", "24")["problem"]


def test_the_gpus_that_are_here_are_planned_for(runner: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "gpus_found", lambda: [Gpu(0, "Some Card", 48 << 30, 40 << 30)])
    (gpu,) = listed(runner, "--ensemble", "paper-gpu")["gpu"]
    assert (gpu["name"], gpu["free_bytes"]) == ("Some Card", 40 << 30)


def test_without_a_gpu_the_sizes_are_shown_all_the_same(runner: CliRunner) -> None:
    lines = listed(runner, "--ensemble", "gpu-8gb")
    assert all(member["footprint"] and member["gpu"] == "–" for member in lines["member"])
    assert "--gpu-gb" in lines["problem"][0]["message"]


def test_an_ensemble_on_the_processor_needs_no_plan(runner: CliRunner) -> None:
    shown = runner.invoke(app, ["models", "list", "--ensemble", "default", "--gpu-gb", "8"]).stdout
    assert "nothing to plan" in shown
    assert "nothing to plan" not in runner.invoke(app, ["models", "list"]).stdout


def test_a_configurations_own_members_are_planned(runner: CliRunner, tmp_path: Path) -> None:
    file = tmp_path / "el4ner.toml"
    file.write_text(
        '[ensemble]\nmembers = ["unknown", "small"]\n'
        '[models.unknown]\nsource = "quantized:nobody/nothing@4.0bpw"\nengine = "exllamav2"\n'
        '[models.small]\nsource = "quantized:microsoft/phi-4@4.0bpw"\nengine = "exllamav2"\n'
        "exllama = { cache_tokens = 1024 }\n"
    )
    os.environ["HF_HUB_OFFLINE"] = "1"
    lines = listed(runner, "--config", str(file), "--gpu-gb", "48")
    messages = " ".join(problem["message"] for problem in lines["problem"])
    assert "models.unknown.source: quantized:nobody/nothing@4.0bpw is not here" in messages
    assert "models.small.exllama.cache_tokens: 1024 is too small" in messages
    assert [member["footprint"] is None for member in lines["member"]] == [True, False]


def test_quantising_without_what_it_needs_is_a_line(runner: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantizing, "look", lambda form, cache_dir: Machine(True, (), False, (), 0))
    result = runner.invoke(app, ["models", "quantize", "microsoft/phi-4"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        "error: quantising needs an NVIDIA GPU, and torch finds none here: run it on a machine that has one\n"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["x/y", "--bits", "12"], "exl2 has 2 to 8 bits, not 12"),
        (["x/y", "--head-bits", "7"], "head bits 2, 3, 4, 5, 6, 8"),
        (["x/y", "--format", "gguf"], "there is no format 'gguf'"),
        (["x/y", "--format", "exl3", "--measurement", "m.json"], "EXL3 is made without a measurement"),
        (["x/y", "--measurement", "nowhere.json"], "nowhere.json: there is no such file"),
    ],
)
def test_what_cannot_be_made_is_refused_at_once(runner: CliRunner, arguments: list[str], said: str) -> None:
    result = runner.invoke(app, ["models", "quantize", *arguments])
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.replace("│", " ").split())


def test_a_preset_that_has_not_been_made_names_the_command(runner: CliRunner) -> None:
    result = runner.invoke(app, ["models", "prepare", "--ensemble", "gpu-8gb"])
    assert result.exit_code == 2
    assert "run `el4ner models quantize HuggingFaceTB/SmolLM2-1.7B-Instruct --bits 4.0`" in result.stderr


def test_quantize_explains_itself_with_its_defaults(runner: CliRunner) -> None:
    shown = runner.invoke(app, ["models", "quantize", "--help"], env={"COLUMNS": "200"}).stdout
    for option in ("--bits", "--head-bits", "--format", "--output", "--measurement", "--gpu"):
        assert option in shown
