"""``el4ner models gpu``: what is there, and a line with a remedy for each thing that is not."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from el4ner.engines.exllama import building, readiness
from el4ner.engines.exllama.capabilities import Capability
from el4ner.engines.exllama.extension import Extension
from el4ner.engines.exllama.readiness import Card, Driver, GpuReadiness, LibraryState
from el4ner.engines.exllama.toolchain import BuildTools, CudaCompiler, Missing
from workers.cli import models_gpu
from workers.cli.app import app

pytestmark = pytest.mark.usefixtures("undisturbed")

NVCC = Path("/venv/nvidia/cu13/bin/nvcc")
TOOLS = BuildTools(
    CudaCompiler("wheels", NVCC, "13.2", (NVCC.parents[1],)),
    Path("/usr/bin/c++"),
    "12.2.0",
    Path("/usr/bin/ninja"),
    Path("/usr/include/python3.11"),
    (),
    ("/usr/local/cuda is CUDA 12.8, and torch is of 13.2",),
)
BARE = dataclasses.replace(TOOLS, compiler=None, missing=(Missing("there is no nvcc", "install it"),))
CARD = Card(0, "NVIDIA H100 80GB HBM3", 85_000_000_000, "9.0")
DRIVER = Driver("580.95.05", "13.0")
BUILT = Extension(Path("/cache/exllamav2_ext.so"), "built", (Capability(9, 0),))
V2 = LibraryState("exllamav2", "0.3.2", None)
V3 = LibraryState("exllamav3", None, None)


def missing(
    *,
    driver: Driver | None = DRIVER,
    cards: tuple[Card, ...] = (CARD,),
    torch_cuda: str | None = "13.2",
    libraries: tuple[LibraryState, ...] = (V2, V3),
    tools: BuildTools = TOOLS,
    **environ: str,
) -> list[str]:
    return [str(item) for item in readiness._missing(driver, cards, torch_cuda, libraries, tools, environ)]


def test_where_all_is_there_nothing_is_missing() -> None:
    assert missing() == []


@pytest.mark.parametrize(
    ("machine", "line"),
    [
        ({"driver": None, "cards": ()}, "there is no NVIDIA driver (libcuda.so.1 cannot be loaded): install the "),
        (
            {"driver": Driver(None, "12.8"), "cards": ()},
            "the driver knows CUDA 12.8 at most, and torch is of CUDA 13.2",
        ),
        ({"cards": ()}, "torch finds no GPU: see whether `nvidia-smi` lists one"),
        ({"cards": (), "CUDA_VISIBLE_DEVICES": ""}, "torch finds no GPU (CUDA_VISIBLE_DEVICES=''): see"),
        (
            {"libraries": (dataclasses.replace(V2, version=None), V3)},
            "exllamav2 is not installed: pip install 'el4ner[gpu]'",
        ),
        ({"tools": BARE}, "there is no nvcc: install it"),
    ],
)
def test_each_thing_that_is_missing_is_one_line_with_its_remedy(machine: dict[str, Any], line: str) -> None:
    (said,) = missing(**machine)
    assert said.startswith(line)
    assert "\n" not in said


def test_a_newer_minor_version_of_cuda_is_no_fault_of_the_driver() -> None:
    # CUDA's minor versions work with each other's drivers.
    assert missing(driver=Driver("580.65", "13.0"), torch_cuda="13.2") == []


def test_who_has_the_extension_needs_no_compiler() -> None:
    assert missing(libraries=(dataclasses.replace(V2, extension=BUILT), V3), tools=BARE) == []


def test_the_drivers_version_is_read_from_both_kinds_of_kernel_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.read_text
    for text, version in (
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\n", "550.54.15"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build  (u@h)\n", "580.95.05"),
    ):
        monkeypatch.setattr(Path, "read_text", lambda path, said=text, **options: said)
        assert readiness._driver_version() == version
    monkeypatch.setattr(Path, "read_text", real)


# --- The command ---------------------------------------------------------------------------------------------------


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["models", "gpu", *arguments], catch_exceptions=False)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_on_this_machine_it_says_that_there_is_no_gpu() -> None:
    result = run()
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert ["GPU", "none"] in [line.split() for line in lines]
    assert any(line.startswith("missing: ") and ("no GPU" in line or "no NVIDIA driver" in line) for line in lines)
    assert "Ready." not in lines


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_on_this_machine_json_says_so_too(tmp_path: Path) -> None:
    result = run("--format", "json", "--arch", "9.0")
    assert result.exit_code == 0
    state = json.loads(result.stdout)
    assert (state["kind"], state["ready"], state["cards"], state["architectures"]) == ("gpu", False, [], ["9.0"])
    assert state["torch"] == torch.__version__
    assert state["cxx"]["version"]
    assert state["extensions_folder"] == str(tmp_path / "cache" / "extensions")
    assert {library["name"] for library in state["libraries"]} == {"exllamav2", "exllamav3"}
    assert all(set(item) == {"what", "mend"} and item["mend"] for item in state["missing"])


def readied(**change: Any) -> GpuReadiness:
    state = GpuReadiness(
        driver=DRIVER,
        cards=(CARD,),
        torch="2.15.0+cu132",
        torch_cuda="13.2",
        architectures=(Capability(9, 0),),
        tools=TOOLS,
        libraries=(dataclasses.replace(V2, extension=BUILT), V3),
        flash_attn=None,
        extensions=Path("/cache"),
        missing=(),
    )
    return dataclasses.replace(state, **change)


def test_a_machine_that_is_ready_is_shown_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "look", lambda cache_dir, architectures: readied())
    shown = {" ".join(line.split()) for line in run().stdout.splitlines()}
    assert {
        "driver 580.95.05, CUDA 13.0 at most",
        "cuda:0 NVIDIA H100 80GB HBM3, 85.0 GB, compute capability 9.0",
        "torch 2.15.0+cu132, CUDA 13.2",
        f"nvcc 13.2, of PyPI's wheels ({NVCC})",
        "passed over: /usr/local/cuda is CUDA 12.8, and torch is of 13.2",
        "C++ /usr/bin/c++ 12.2.0",
        "ninja /usr/bin/ninja",
        "Python.h /usr/include/python3.11",
        "exllamav2 0.3.2, compiled for compute capability 9.0: /cache/exllamav2_ext.so",
        "exllamav3 not installed",
        "flash-attn not installed (attention by torch)",
        "Ready.",
    } <= shown


@pytest.mark.parametrize(
    ("extension_there", "line"),
    [
        (None, "exllamav2 0.3.2, not compiled for compute capability 9.0 (el4ner models gpu --build)"),
        (
            Extension(Path("/else/exllamav2_ext.so"), "prebuilt"),
            "exllamav2 0.3.2, prebuilt, from /else/exllamav2_ext.so",
        ),
    ],
)
def test_whether_the_extension_is_there_is_shown(
    extension_there: Extension | None, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = readied(libraries=(dataclasses.replace(V2, extension=extension_there), V3))
    monkeypatch.setattr(readiness, "look", lambda cache_dir, architectures: state)
    assert line in {" ".join(shown.split()) for shown in run().stdout.splitlines()}


def test_build_compiles_with_lines_of_progress_and_then_shows_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def build(library: str, cache_dir: Path, *, architectures: Any, progress: Any) -> Extension:
        asked.append((library, architectures))
        progress.start("exllamav2: compiling (2 at a time)", 48)
        for _ in range(48):
            progress.advance(1)
        progress.done()
        return BUILT

    clock = iter(range(1000))
    monkeypatch.setattr(models_gpu.time, "monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(building, "build_extension", build)
    monkeypatch.setattr(readiness, "look", lambda cache_dir, architectures: readied())
    result = run("--build", "--arch", "9.0", "--arch", "8.6", "--format", "json")
    assert result.exit_code == 0
    assert asked == [("exllamav2", (Capability(8, 6), Capability(9, 0)))]
    assert json.loads(result.stdout)["libraries"][0]["extension"]["architectures"] == ["9.0"]
    told = [line.partition(", ")[0] for line in result.stderr.splitlines()]
    assert told[0] == "exllamav2: compiling (2 at a time) …"
    assert told[-1] == "exllamav2: compiling (2 at a time): 48 of 48"
    assert 3 < len(told) < 12


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_build_without_a_gpu_and_without_a_card_is_refused() -> None:
    result = run("--build")
    assert result.exit_code == 2
    assert "for which cards is it to be compiled?" in result.stderr


def test_mistaken_options_are_refused() -> None:
    assert run("--arch", "sm_90").exit_code == 2
    assert run("--library", "exllamav4").exit_code == 2
