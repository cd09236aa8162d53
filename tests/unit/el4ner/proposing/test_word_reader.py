"""Words as a member reads them: in the second copy of a sentence, at the end of each word."""

from __future__ import annotations

import numpy as np
import pytest

from el4ner.engines.base import Prompt, StateRequest, StateResult
from el4ner.errors import EngineError
from el4ner.proposing.word_reader import WordReader
from el4ner.text.word_units import word_units
from el4ner.types import Usage
from tests.support.doubles import ScriptedStateEngine

TEXTS = ["Ada met Bob-Cem.", "", "上海 is big", " \n"]


def reader(engine: ScriptedStateEngine) -> WordReader:
    return WordReader(
        engine, lambda text: Prompt("types", f"Text: {text}"), lambda text: f"Again: {text}", version="v1"
    )


def test_a_sentence_is_read_behind_itself_at_the_end_of_every_word() -> None:
    engine = ScriptedStateEngine("a")
    reader(engine).read(TEXTS)
    first, second = engine.shown
    assert (first.prompt.user, first.tails) == ("Text: Ada met Bob-Cem.", ("Again: Ada met Bob-Cem.",))
    assert [first.tails[0][:end].rsplit(" ")[-1] for end in first.ends[0]] == [
        "Ada",
        "met",
        "Bob",
        "Bob-",
        "Bob-Cem",
        "Bob-Cem.",
    ]
    assert second.tails == ("Again: 上海 is big",)


def test_words_come_with_their_places_and_the_middle_layers_states() -> None:
    engine = ScriptedStateEngine("a")
    read, usage = reader(engine).read(TEXTS)
    assert [places for places, _ in read] == [word_units(text) for text in TEXTS]
    assert [states.shape for _, states in read] == [(6, 8), (0, 8), (len(word_units(TEXTS[2])), 8), (0, 8)]
    prompt = Prompt("types", "Text: Ada met Bob-Cem.")
    for (_, end), state in zip(read[0][0], read[0][1], strict=True):
        seen = engine.show(prompt, f"Again: {TEXTS[0][:end]}")
        assert (state == seen[0]).all()
        assert not (state == seen[1]).all()
    assert usage.prompt_tokens > 0


def test_a_sentence_is_read_the_same_alone_and_beside_others() -> None:
    together, _ = reader(ScriptedStateEngine("a")).read(TEXTS)
    for text, (places, states) in zip(TEXTS, together, strict=True):
        ((own_places, own_states),), _ = reader(ScriptedStateEngine("a")).read([text])
        assert own_places == places
        assert (own_states == states).all()


def test_nothing_is_asked_about_texts_without_words() -> None:
    engine = ScriptedStateEngine("a")
    read, usage = reader(engine).read(["", " \t"])
    assert engine.shown == []
    assert [len(states) for _, states in read] == [0, 0]
    assert usage == Usage()


def test_its_fingerprint_follows_the_member_and_the_prompts() -> None:
    engine, other = ScriptedStateEngine("a"), ScriptedStateEngine("b")

    def of(member: ScriptedStateEngine, version: str) -> str:
        made = WordReader(member, lambda text: Prompt("", text), lambda text: text, version=version)
        assert made.name == member.name
        return made.fingerprint

    assert len({of(engine, "v1"), of(engine, "v2"), of(other, "v1")}) == 3
    assert of(engine, "v1") == of(ScriptedStateEngine("a"), "v1")


def test_a_member_that_answers_for_fewer_words_is_found_out() -> None:
    class Forgetful(ScriptedStateEngine):
        def _states(self, request: StateRequest) -> StateResult:
            found = super()._states(request)
            return StateResult(np.ascontiguousarray(found.states[:-1]), found.usage)

    with pytest.raises(EngineError):
        reader(Forgetful("a")).read(["Ada met Bob"])
