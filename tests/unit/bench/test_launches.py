"""What bench/counting.py counts, and that bench/launches.py runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.paths import ROOT

HERE = torch.device("cpu")


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    from counting import DeviceCounts

    made = DeviceCounts("el4ner")
    made.on_device([weight])
    return made


weight = torch.ones(4, 4)


def counted(counts: Any, work: Any) -> tuple[int, int, int]:
    """Launches, copies, waits."""
    with counts, torch.inference_mode():
        work()
    found = counts.take()
    return found["launches"], found["copies"], found["waits"]


@pytest.mark.parametrize(
    ("work", "expected"),
    [
        (lambda: weight + 1, (1, 0, 0)),
        (lambda: weight.view(2, 8).transpose(0, 1)[1:], (0, 0, 0)),
        (lambda: weight.transpose(0, 1).reshape(16), (1, 0, 0)),
        (lambda: torch.empty_like(weight), (0, 0, 0)),
        (lambda: torch.ones(3) + 1, (0, 0, 0)),
        (lambda: torch.arange(4, device=HERE) + weight, (2, 0, 0)),
        (lambda: torch.tensor([1.0, 2.0, 3.0, 4.0], device=HERE) + weight, (1, 1, 1)),
        (lambda: torch.ones(4).to(HERE, non_blocking=True) + weight, (1, 1, 0)),
        (lambda: torch.ones(4) + weight, (1, 1, 1)),
        (lambda: (weight + 1).sum().item(), (2, 0, 1)),
        (lambda: (weight + 1).tolist(), (1, 0, 1)),
        (lambda: torch.zeros(4, 4).copy_(weight), (0, 1, 1)),
        (lambda: weight[[0, 1]], (1, 1, 1)),
        (lambda: torch.nn.functional.linear(weight, weight), (1, 0, 0)),
        (lambda: weight.cpu() + 1, (0, 0, 1)),
    ],
)
def test_counts_what_a_device_would_be_asked(counts: Any, work: Any, expected: tuple[int, int, int]) -> None:
    assert counted(counts, work) == expected


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    import launches

    return launches


SMALL = ["--prompts", "2", "--tokens", "300", "--continuations", "5"]


@pytest.mark.slow
def test_writes_what_it_counted_for_both_engines(launches: Any, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    launches.main([*SMALL, "--layers", "2", "--json", str(out)])
    results = json.loads(out.read_text())
    assert set(results) == {"exllamav2", "transformers"}
    for calls in results.values():
        for call in calls.values():
            assert call["launches"] > 0
            assert call["waits"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("attention", ["varlen", "torch"])
def test_no_layer_of_exllamav2_waits_or_copies(launches: Any, tmp_path: Path, attention: str) -> None:
    """Twice the layers: more launches, and not one copy or wait more."""
    found = {}
    for layers in ("2", "4"):
        out = tmp_path / f"{layers}.json"
        launches.main(
            ["--engine", "exllamav2", *SMALL, "--attention", attention, "--layers", layers, "--json", str(out)]
        )
        found[layers] = json.loads(out.read_text())["exllamav2"]
    for call in ("score, first", "states, first", "score, again", "states, again"):
        few, many = found["2"][call], found["4"][call]
        assert many["launches"] > few["launches"]
        assert (many["copies"], many["waits"]) == (few["copies"], few["waits"])
        assert many["waits"] == 1, "one pass, one wait"
