"""The extras: the table of what brings a library is pyproject.toml's, and whoever lacks one is told its name."""

import re
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from el4ner.config import ModelSettings
from el4ner.engines.registry import load_engine
from el4ner.extras import METHOD_EXTRAS, NotInstalledError, extra_explained, extras_explained
from tests.support.paths import ROOT
from workers.cli.command_extras import STREAM_EXTRAS, command_explained

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NOT_INSTALLED_HERE = {"exllamav3": "exllamav3"}
COMES_ALONG = {
    "h11": "uvicorn",
    "huggingface_hub": "transformers",
    "mode": "faust-streaming",
    "opentelemetry": "opentelemetry-sdk",
    "tokenizers": "transformers",
}
"""Modules that no extra names: they come with what it names."""


def named(requirements: list[str]) -> set[str]:
    """Packages, as the index has them."""
    names = (re.match(r"[\w.-]+", requirement) for requirement in requirements)
    return {re.sub(r"[-_.]+", "-", name[0]).lower() for name in names if name is not None}


@cache
def distributions_of_modules() -> Mapping[str, list[str]]:
    """Looks through everything that is installed: half a second of a processor."""
    return packages_distributions()


def distribution(module: str) -> str:
    if module in NOT_INSTALLED_HERE | COMES_ALONG:
        return (NOT_INSTALLED_HERE | COMES_ALONG)[module]
    return re.sub(r"[-_.]+", "-", distributions_of_modules()[module][0]).lower()


@pytest.mark.parametrize(("module", "extra"), sorted({**METHOD_EXTRAS, **STREAM_EXTRAS}.items()))
def test_the_extra_that_is_named_brings_the_module(module: str, extra: str) -> None:
    assert distribution(module) in named(PROJECT["optional-dependencies"][extra])
    assert distribution(module) not in named(PROJECT["dependencies"])


def test_the_base_is_light() -> None:
    """No model library, no client of a broker, nothing that is compiled where it is installed."""
    assert len(PROJECT["dependencies"]) <= 14
    heavy = {"torch", "transformers", "scipy", "spacy", "kafka-python", "faust-streaming", "redis", "aiohttp"}
    assert not heavy & named(PROJECT["dependencies"])


def test_who_lacks_an_extra_is_told_its_name() -> None:
    message = r"models\.big: torch is not installed; install el4ner\[models\]"
    with pytest.raises(NotInstalledError, match=message), extras_explained("models.big"):
        raise ModuleNotFoundError("No module named 'torch.cuda'", name="torch.cuda")


def test_what_no_extra_brings_is_a_bug() -> None:
    assert extra_explained(ModuleNotFoundError("No module named 'el4ner.gone'", name="el4ner.gone")) is None
    with pytest.raises(ModuleNotFoundError), extras_explained("models.big"):
        raise ModuleNotFoundError("No module named 'json5'", name="json5")


@pytest.mark.parametrize(
    ("source", "extra"), [("packaged:smollm2-135m-instruct", "embedded"), ("/models/big", "models")]
)
def test_a_member_names_what_brings_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str, extra: str
) -> None:
    def lacking() -> None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr("el4ner.engines.registry.import_torch", lacking)
    with pytest.raises(NotInstalledError, match=rf"install el4ner\[{extra}\]"):
        load_engine("big", ModelSettings(source=source), cache_dir=tmp_path)


@pytest.mark.parametrize(
    ("command", "module", "extra"),
    [
        ("tail", "kafka", "stream"),
        ("serve", "torch", "serve"),
        ("ui", "aiokafka", "ui"),
        ("tag", "torch", "models"),
        ("demo", "psutil", "embedded,local"),
    ],
)
def test_a_command_names_all_that_it_needs(command: str, module: str, extra: str) -> None:
    explained = command_explained(command, ModuleNotFoundError(f"No module named {module!r}", name=module))
    assert str(explained).startswith(f"el4ner {command}: {module} is not installed; ")
    assert f"pip install 'el4ner[{extra}]'" in str(explained)
