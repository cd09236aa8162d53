"""What somebody sees who names a GPU engine where it cannot run: one line, with the remedy."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from el4ner.config import ExllamaSettings, ModelSettings
from el4ner.engines.exllama import importing
from el4ner.engines.exllama.importing import device_index, explain, import_library
from el4ner.engines.registry import load_engine
from el4ner.errors import ModelError
from el4ner.models.progress import Progress
from tests.support.tiny_models import tiny_llama


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ModuleNotFoundError("No module named 'exllamav2'", name="exllamav2"), "is not installed: install el4ner[gpu]"),
        (
            ModuleNotFoundError("No module named 'pandas'", name="pandas"),
            "lacks the module 'pandas': install el4ner[gpu]",
        ),
        (
            OSError("CUDA_HOME environment variable is not set. Please set it"),
            "found no nvcc: install el4ner[gpu], which brings one, or the CUDA toolkit",
        ),
        (
            ImportError("/x/exllamav2_ext.so: undefined symbol: _ZN3c104impl"),
            "was compiled for another torch or CUDA (/x/exllamav2_ext.so: undefined symbol: _ZN3c104impl): remove",
        ),
        (
            ImportError("/x/exllamav2_ext.so: file too short"),
            "its extension is damaged (/x/exllamav2_ext.so: file too short): remove that file",
        ),
        (
            RuntimeError(
                "Error building extension 'exllamav2_ext': [1/40] nvcc -c a.cu\nFAILED: a.cuda.o\n"
                'a.cu(12): error: identifier "x" is undefined\nninja: build stopped'
            ),
            'could not be compiled: a.cu(12): error: identifier "x" is undefined',
        ),
        (RuntimeError("No CUDA GPUs are available\nmore"), "cannot be imported: No CUDA GPUs are available"),
        (RuntimeError(), "cannot be imported: RuntimeError"),
    ],
)
def test_one_line_says_what_is_missing(error: BaseException, told: str) -> None:
    line = explain("exllamav2", error)
    assert told in line
    assert "\n" not in line


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("engine", ["exllamav2", "exllamav3"])
def test_without_a_gpu_the_engine_says_so(engine: str, tmp_path: Path) -> None:
    folder = tiny_llama(tmp_path / "llama")
    settings = ModelSettings(source=str(folder), engine=engine)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=rf"^engine '{engine}' needs a CUDA GPU: torch .* (is built|finds)"):
        load_engine("m", settings, cache_dir=tmp_path / "cache")


def test_importing_keeps_the_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()

    def imported(name: str) -> SimpleNamespace:
        torch.set_num_threads(before + 3)
        return SimpleNamespace(name=name)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(importing, "load_extension", lambda library, cache_dir, progress: None)
    monkeypatch.setattr(importing.importlib, "import_module", imported)
    assert import_library("exllamav2").name == "exllamav2"
    assert torch.get_num_threads() == before


def test_the_extension_is_there_before_the_library_is_imported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    calls = []

    def load_extension(library: str, cache_dir: Path, progress: Progress) -> None:
        calls.append((library, cache_dir))
        progress.start("exllamav2: compiling (2 at a time)", 48)
        progress.advance(47)
        progress.advance(1)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(importing, "load_extension", load_extension)
    monkeypatch.setattr(importing.importlib, "import_module", lambda name: calls.append((name, None)))
    import_library("exllamav2", tmp_path)
    assert calls == [("exllamav2", tmp_path), ("exllamav2", None)]
    # Seen also where warnings alone are shown; the 47th step came less than seconds after the first record.
    assert [(record.levelname, vars(record)["objects"], vars(record)["of"]) for record in caplog.records] == [
        ("WARNING", 0, 48),
        ("WARNING", 48, 48),
    ]


def test_a_compiler_that_is_missing_is_a_model_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def load_extension(library: str, cache_dir: Path, progress: Progress) -> None:
        raise ModelError("exllamav2 has to be compiled, and there is no ninja: pip install ninja")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(importing, "load_extension", load_extension)
    with pytest.raises(ModelError, match=r"^exllamav2 has to be compiled, and there is no ninja: pip install ninja$"):
        import_library("exllamav2", tmp_path)


def test_a_gpu_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [device_index("m", device) for device in ("auto", "cuda", "cuda:1")] == [0, 0, 1]
    with pytest.raises(ModelError, match=r"^models.m.device: there is no 'cuda:2', there are 2 GPUs$"):
        device_index("m", "cuda:2")
    with pytest.raises(ModelError, match="needs a GPU, not 'cpu'"):
        device_index("m", "cpu")


@pytest.mark.parametrize("tokens", [0, 512, 1500])
def test_a_cache_has_whole_pages(tokens: int) -> None:
    with pytest.raises(ValueError, match="cache_tokens"):
        ExllamaSettings(cache_tokens=tokens)
