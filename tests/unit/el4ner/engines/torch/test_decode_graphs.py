"""Decoding steps that are recorded and replayed: the same answers, and none where a replay is not to be trusted."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from el4ner.engines.base import GenerateRequest, GenerateResult
from el4ner.engines.torch import decode_graphs
from el4ner.engines.torch.decode_graphs import Recorder
from el4ner.engines.torch.transformers_engine import TransformersEngine
from el4ner.errors import EngineOutOfMemoryError
from tests.support.engine_conformance import SENTENCES, prompt
from tests.support.replays import Replays
from tests.support.tiny_models import tiny_gemma3, tiny_llama


class CannotRecord:
    def record(self, work: Callable[[], torch.Tensor]) -> tuple[Callable[[], None], torch.Tensor]:
        raise RuntimeError("operation not permitted when stream is capturing")


class RecordsNothing:
    """As a CUDA graph of another device's stream: the work is done while it is recorded, and a replay does nothing."""

    def record(self, work: Callable[[], torch.Tensor]) -> tuple[Callable[[], None], torch.Tensor]:
        return lambda: None, work()


class NoMemory:
    def record(self, work: Callable[[], torch.Tensor]) -> tuple[Callable[[], None], torch.Tensor]:
        raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.fixture(scope="module", params=[tiny_llama, tiny_gemma3], ids=["llama", "gemma3"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made: Path = request.param(tmp_path_factory.mktemp("models") / "model")
    return made


Load = Callable[..., TransformersEngine]


@pytest.fixture
def load(folder: Path, tmp_path: Path) -> Iterator[Load]:
    loaded: list[TransformersEngine] = []

    def loader(**named: object) -> TransformersEngine:
        given = {"dtype": "float32", "cache_dir": tmp_path, "attend": "together", **named}
        loaded.append(TransformersEngine.load("tiny", folder, **given))  # type: ignore[arg-type]
        return loaded[-1]

    yield loader
    for engine in loaded:
        engine.close()


def asked(new_tokens: int = 24) -> list[GenerateRequest]:
    """Answers that end at different times, of prompts on both sides of a border of 256 keys."""
    lengths = (new_tokens, 3, new_tokens // 2, new_tokens)
    return [
        GenerateRequest(prompt(sentence + " They met again." * (index * 5)), count)
        for index, (sentence, count) in enumerate(zip(SENTENCES, lengths, strict=True))
    ]


def answers(results: list[GenerateResult]) -> list[tuple[str, bool, int]]:
    return [(result.text, result.finished, result.usage.new_tokens) for result in results]


def test_replayed_answers_are_those_of_steps_that_are_not_recorded(load: Load) -> None:
    plain = load()
    recorder = Replays()
    engine = load(recorder=recorder)
    expected = answers(plain.generate(asked()))
    assert answers(engine.generate(asked())) == expected
    assert recorder.replayed > 0
    recorded = recorder.recorded
    assert answers(engine.generate(asked())) == expected, "behind states that an earlier call left"
    constrained = [GenerateRequest(request.prompt, 12, spans_of=SENTENCES[0]) for request in asked()]
    assert answers(engine.generate(constrained)) == answers(plain.generate(constrained))
    assert recorder.recorded <= recorded + 4, "a shape is recorded once"


def test_a_larger_group_moves_the_states_and_records_anew(load: Load) -> None:
    recorder = Replays()
    engine = load(recorder=recorder)
    plain = load()
    few = asked()[:1]
    assert answers(engine.generate(few)) == answers(plain.generate(few))
    before = recorder.recorded
    assert answers(engine.generate(asked() * 3)) == answers(plain.generate(asked() * 3))
    assert answers(engine.generate(few)) == answers(plain.generate(few))
    assert recorder.recorded > before


@pytest.mark.parametrize(
    "recorder",
    [
        Replays(lambda logits: logits.flip(-1)),
        Replays(lambda logits: logits * float("nan")),
        CannotRecord(),
        RecordsNothing(),
    ],
    ids=["other logits", "no numbers", "cannot be recorded", "nothing is recorded"],
)
def test_a_replay_that_is_not_to_be_trusted_is_switched_off(
    load: Load, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    engine = load(recorder=recorder)
    with caplog.at_level(logging.WARNING):
        results = answers(engine.generate(asked()))
        assert results == answers(load().generate(asked()))
        engine.generate(asked())
    assert [record.message for record in caplog.records] == ["decode-graphs-off"]


def test_a_model_that_waits_for_the_device_is_never_recorded(
    load: Load, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recording that fails leaves torch's allocator unusable, so it must not begin."""
    recorder = Replays()
    engine = load(recorder=recorder)
    body = engine._model._body
    monkeypatch.setattr(body.norm, "forward", _reads_its_input(body.norm.forward))
    with caplog.at_level(logging.WARNING):
        assert answers(engine.generate(asked())) == answers(load().generate(asked()))
    assert recorder.recorded == 0
    assert [record.reason for record in caplog.records] == ["the model waits for the device (is_nonzero)"]  # type: ignore[attr-defined]


def _reads_its_input(forward: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
    def reads(hidden: torch.Tensor) -> torch.Tensor:
        assert bool(hidden.isfinite().all())
        return forward(hidden)

    return reads


def test_running_out_of_memory_while_recording_is_that_error(load: Load) -> None:
    with pytest.raises(EngineOutOfMemoryError):
        load(recorder=NoMemory()).generate(asked())


def test_only_so_many_shapes_are_kept(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_graphs, "_KEPT", 1)
    recorder = Replays()
    engine = load(recorder=recorder)
    expected = answers(load().generate(asked()))
    assert answers(engine.generate(asked())) == expected
    assert len(engine._model._graphs._recorded) == 1  # type: ignore[union-attr]


def test_what_is_rounded_up_counts_as_memory_too(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """States take what the engine allows them: five rows have the room of eight."""
    engine = load(recorder=Replays())
    engine.generate(asked()[:1])
    model = engine._model
    largest = 4 * 512
    monkeypatch.setattr(engine, "_group_tokens", largest)
    taken: list[int] = []
    group = model.decoding_group

    def noted(rows: int, capacity: int) -> torch.Tensor:
        states = group(rows, capacity)
        taken.append(states.shape[2] * states.shape[4])
        assert taken[-1] == model.decoding_room(rows, capacity)
        return states

    monkeypatch.setattr(model, "decoding_group", noted)
    requests = asked() + asked()[:1]
    assert answers(engine.generate(requests)) == answers(load().generate(requests))
    assert len(taken) > 1
    assert max(taken) <= largest


def test_closing_gives_the_states_back(load: Load) -> None:
    engine = load(recorder=Replays())
    engine.generate(asked())
    graphs = engine._model._graphs
    assert graphs is not None
    engine.close()
    assert graphs._states._memory is None
    assert not graphs._recorded
