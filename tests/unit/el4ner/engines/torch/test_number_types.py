"""What a model computes in where the settings leave it open: what the processor has, and is fast at."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from el4ner.engines.torch import number_types
from el4ner.engines.torch.number_types import TIMED, choose_precision, has_bfloat16, layer_seconds
from el4ner.errors import ModelError

CPU = torch.device("cpu")
Machine = Callable[..., list[None]]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A processor that has bfloat16 or int8 or neither, and how many times as fast as float32 its bfloat16 is. Gives a
    list that is as long as it was timed often."""

    def make(*, bfloat16: bool = True, int8: bool = True, times: float = 2.5) -> list[None]:
        timed: list[None] = []

        def seconds() -> dict[str, float]:
            timed.append(None)
            return {"bfloat16": 1.0, "float32": times}

        monkeypatch.setattr(number_types, "has_bfloat16", lambda: bfloat16)
        monkeypatch.setattr(number_types, "multiplies_int8", lambda: int8)
        monkeypatch.setattr(number_types, "layer_seconds", seconds)
        return timed

    return make


@pytest.mark.parametrize(
    ("bfloat16", "times", "int8", "expected"),
    [
        (True, 2.5, True, "bfloat16"),
        (True, 1.25, True, "bfloat16"),
        (True, 1.2, True, "int8"),
        (True, 0.6, True, "int8"),
        (True, 0.6, False, "float32"),
        (False, 2.5, True, "int8"),
        (False, 2.5, False, "float32"),
    ],
)
def test_auto_is_bfloat16_only_where_it_is_fast(
    machine: Machine, tmp_path: Path, bfloat16: bool, times: float, int8: bool, expected: str
) -> None:
    timed = machine(bfloat16=bfloat16, int8=int8, times=times)
    assert choose_precision("tiny", "auto", CPU, tmp_path) == expected
    assert len(timed) == bfloat16  # what a processor does not have is not timed


def test_a_machine_is_timed_once(machine: Machine, tmp_path: Path) -> None:
    machine(times=0.6)
    assert choose_precision("one", "auto", CPU, tmp_path) == "int8"
    timed = machine(times=2.5)
    assert choose_precision("two", "auto", CPU, tmp_path) == "int8"  # all members compute in what was found first
    assert timed == []
    assert choose_precision("two", "auto", CPU, tmp_path / "other") == "bfloat16"


def test_another_processor_with_the_same_folder_is_timed_for_itself(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A home folder that several machines share."""
    machine(times=0.6)
    assert choose_precision("tiny", "auto", CPU, tmp_path) == "int8"
    monkeypatch.setattr(number_types, "processor", lambda: "model name: another")
    machine(times=2.5)
    assert choose_precision("tiny", "auto", CPU, tmp_path) == "bfloat16"
    monkeypatch.undo()
    machine(times=2.5)
    assert choose_precision("tiny", "auto", CPU, tmp_path) == "int8"


@pytest.mark.parametrize(
    "kept", ["", "[]", "{", '{"a": 1}', '{"a": {"bfloat16": 1}}', '{"a": {"bfloat16": "x"}}', "\xff"]
)
def test_a_damaged_file_is_timed_anew(machine: Machine, tmp_path: Path, kept: str) -> None:
    (tmp_path / TIMED).write_bytes(kept.encode("latin-1"))
    timed = machine(times=0.6)
    for _ in range(2):
        assert choose_precision("tiny", "auto", CPU, tmp_path) == "int8"
    assert len(timed) == 1


def test_a_folder_that_cannot_be_written_costs_only_time(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    timed = machine(times=0.6)
    for _ in range(2):
        assert choose_precision("tiny", "auto", CPU, tmp_path / "file" / "folder") == "int8"
    assert len(timed) == 2


def test_what_is_set_is_taken_whatever_is_fast(machine: Machine, tmp_path: Path) -> None:
    timed = machine(times=0.6)
    assert choose_precision("tiny", "bfloat16", CPU, tmp_path) == "bfloat16"
    assert choose_precision("tiny", "float32", CPU, tmp_path) == "float32"
    assert choose_precision("tiny", "auto", torch.device("cuda"), tmp_path) == "bfloat16"
    assert timed == []


def test_int8_where_it_does_not_go_is_an_error(machine: Machine, tmp_path: Path) -> None:
    machine(int8=False)
    with pytest.raises(ModelError, match=r"^tiny: int8 is for processors: set models\.tiny\.dtype to"):
        choose_precision("tiny", "int8", torch.device("cuda"), tmp_path)
    with pytest.raises(ModelError, match=r"no int8 on this processor with this torch: set models\.tiny\.dtype to auto"):
        choose_precision("tiny", "int8", CPU, tmp_path)


def test_there_is_no_bfloat16_where_torch_makes_do_with_less(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    for capability, there in (("AVX512", True), ("AVX2", False), ("DEFAULT", False)):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda told=capability: told)
        assert has_bfloat16() == there


def test_timing_leaves_threads_and_chance_as_they_were() -> None:
    torch.manual_seed(7)
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    assert min(layer_seconds().values()) > 0
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


def test_timing_does_not_import_what_it_does_not_need() -> None:
    """SymPy takes a second, and three where Python has not compiled it."""
    timed = "from el4ner.engines.torch.number_types import layer_seconds; layer_seconds()"
    script = f"import sys; {timed}; assert 'sympy' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
