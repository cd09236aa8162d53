"""What is read of a pool is kept batch by batch: interrupted reading goes on, and an edit costs its own reading."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from el4ner.engines.base import Prompt, StateEngine, StateRequest, StateResult, States
from el4ner.evidence.encoders import MemberEncoder
from el4ner.evidence.kept_states import KeptStates
from el4ner.evidence.span_memory import PoolSpans, SpanMemory
from el4ner.pools import Pool
from el4ner.pools.pool import PoolSentence
from el4ner.types import Span
from tests.support.doubles import ScriptedStateEngine, drawn


def request(sentence: str, *tails: str) -> StateRequest:
    return StateRequest(Prompt("types", sentence), tails)


def asked_of(engine: ScriptedStateEngine) -> list[tuple[str, str]]:
    return [(shown.prompt.user, tail) for shown in engine.shown for tail in shown.tails]


def states_of(engine: StateEngine, *requests: StateRequest) -> States:
    return np.concatenate([result.states for result in engine.states(requests)])


def test_another_process_asks_only_for_what_is_not_kept(tmp_path: Path) -> None:
    file = tmp_path / "kept" / "states"
    states_of(KeptStates(ScriptedStateEngine("a"), file), request("one", "x", "y"), request("two", "x"))
    engine, plain = ScriptedStateEngine("a"), ScriptedStateEngine("a")
    wanted = (request("two", "x"), request("one", "y", "z", "x"), request("three", "x"))
    assert np.array_equal(states_of(KeptStates(engine, file), *wanted), states_of(plain, *wanted))
    assert asked_of(engine) == [("one", "z"), ("three", "x")]


def test_words_are_kept_with_their_places(tmp_path: Path) -> None:
    marked = StateRequest(Prompt("", "s"), ("one two",), ((3, 7),))
    states_of(KeptStates(ScriptedStateEngine("a"), tmp_path / "f"), marked)
    engine = ScriptedStateEngine("a")
    kept = KeptStates(engine, tmp_path / "f")
    assert np.array_equal(states_of(kept, marked), states_of(ScriptedStateEngine("a"), marked))
    assert not engine.shown
    states_of(kept, StateRequest(Prompt("", "s"), ("one two",), ((3, 5),)))
    assert len(engine.shown) == 1, "other places of the same text are other states"


def test_another_engine_or_prompt_is_something_else(tmp_path: Path) -> None:
    states_of(KeptStates(ScriptedStateEngine("a"), tmp_path / "f"), request("one", "x"))
    other, same = ScriptedStateEngine("b"), ScriptedStateEngine("a")
    states_of(KeptStates(other, tmp_path / "f"), request("one", "x"))
    states_of(KeptStates(same, tmp_path / "f"), StateRequest(Prompt("more types", "one"), ("x",)))
    assert asked_of(other) == asked_of(same) == [("one", "x")]


@pytest.mark.parametrize("cut", [0xFFFF0000, 0xFFFFFFFF])
def test_states_come_back_to_the_last_bit(tmp_path: Path, cut: int) -> None:
    """Of bfloat16, which takes half of the room, and of float32."""

    def show(prompt: Prompt, tail: str) -> States:
        return (drawn(tail).view(np.uint32) & np.uint32(cut)).view(np.float32)

    wanted = request("s", *(f"t{number}" for number in range(300)))
    states_of(KeptStates(ScriptedStateEngine("a", show=show), tmp_path / "f"), wanted)
    again = states_of(KeptStates(ScriptedStateEngine("a"), tmp_path / "f"), wanted)
    assert np.array_equal(again, states_of(ScriptedStateEngine("a", show=show), wanted))


def test_what_a_pool_has_no_more_is_dropped_once_all_is_read(tmp_path: Path) -> None:
    states_of(KeptStates(ScriptedStateEngine("a"), tmp_path / "f"), request("old", "x"), request("both", "x"))
    edited = KeptStates(ScriptedStateEngine("a"), tmp_path / "f")
    states_of(edited, request("both", "x"), request("new", "x"))
    edited.tidy()
    engine = ScriptedStateEngine("a")
    states_of(KeptStates(engine, tmp_path / "f"), request("old", "x"), request("both", "x"), request("new", "x"))
    assert asked_of(engine) == [("old", "x")]


def test_tidying_after_nothing_was_read_drops_nothing(tmp_path: Path) -> None:
    states_of(KeptStates(ScriptedStateEngine("a"), tmp_path / "f"), request("one", "x"), request("two", "x"))
    idle = KeptStates(ScriptedStateEngine("a"), tmp_path / "f")
    states_of(idle, request("one", "x"))
    idle.tidy()
    engine = ScriptedStateEngine("a")
    states_of(KeptStates(engine, tmp_path / "f"), request("one", "x"), request("two", "x"))
    assert not engine.shown


@pytest.mark.parametrize("content", [b"no database at all, but long enough to be looked at", b""])
def test_a_damaged_file_costs_reading_and_is_begun_anew(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "f"
    file.write_bytes(content)
    for _ in range(2):
        assert np.array_equal(
            states_of(KeptStates(ScriptedStateEngine("a"), file), request("one", "x")),
            states_of(ScriptedStateEngine("a"), request("one", "x")),
        )
    engine = ScriptedStateEngine("a")
    states_of(KeptStates(engine, file), request("one", "x"))
    assert not engine.shown


def test_a_folder_that_cannot_be_written_costs_nothing_else(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "no-folder").write_text("a file")
    kept = KeptStates(ScriptedStateEngine("a"), tmp_path / "no-folder" / "f")
    with caplog.at_level(logging.WARNING):
        assert states_of(kept, request("one", "x")).shape == (1, 2, 8)
        assert states_of(kept, request("two", "x")).shape == (1, 2, 8)
        kept.tidy()
    assert caplog.text.count("not kept") == 1


# --- with a pool ----------------------------------------------------------------------------------------------------


class Broken(ScriptedStateEngine):
    """Dies after some calls, as a process may."""

    def __init__(self, calls: int) -> None:
        super().__init__("a")
        self.left = calls

    def states(self, requests: Sequence[StateRequest]) -> list[StateResult]:
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        return super().states(requests)


def pool(*texts: str) -> PoolSpans:
    def sentence(text: str) -> PoolSentence:
        first = text.split(" ")[0]
        return PoolSentence(text, ((Span(0, len(first), first), "person"),))

    return PoolSpans.of(Pool("p", {"person": "a name"}, tuple(map(sentence, texts))), lambda one: [], limit=99)


def read(engine: ScriptedStateEngine, folder: Path, spans: PoolSpans) -> SpanMemory:
    kept = KeptStates(engine, folder / "states")
    encoder = MemberEncoder(kept, lambda text: Prompt("", text), lambda name: f"- {name}", version="v")
    memory = SpanMemory.open(spans, encoder, folder, label="reading")
    kept.tidy()
    return memory


TEXTS = [f"Name{number} was there." for number in range(60)]


def test_interrupted_reading_goes_on_where_it_was(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        read(Broken(2), tmp_path, pool(*TEXTS))
    engine = ScriptedStateEngine("a")
    memory = read(engine, tmp_path, pool(*TEXTS))
    assert len(asked_of(engine)) == 60 - 2 * 16
    whole = read(ScriptedStateEngine("a"), tmp_path / "other", pool(*TEXTS))
    assert np.array_equal(memory.vectors, whole.vectors)


def test_of_an_edited_pool_only_the_new_sentences_are_read(tmp_path: Path) -> None:
    read(ScriptedStateEngine("a"), tmp_path, pool(*TEXTS))
    engine = ScriptedStateEngine("a")
    read(engine, tmp_path, pool(*TEXTS[:20], "Nobody knew.", *TEXTS[21:]))
    assert asked_of(engine) == [("Nobody knew.", "- Nobody")]
