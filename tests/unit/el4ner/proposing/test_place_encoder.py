"""A span where it stands: its own words and the ones beside it, as a member reads them."""

from __future__ import annotations

import numpy as np
import pytest

from el4ner.engines.base import Prompt
from el4ner.proposing.place_encoder import PlaceEncoder
from el4ner.proposing.word_reader import WordReader
from el4ner.text.word_units import word_units
from el4ner.types import Span
from tests.support.doubles import ScriptedStateEngine

TEXT = "user ada-bob left eve"


def made(engine: ScriptedStateEngine) -> tuple[PlaceEncoder, WordReader]:
    reader = WordReader(engine, lambda text: Prompt("types", text), lambda text: text, version="v")
    return PlaceEncoder(reader), reader


def spans_of(text: str, *surfaces: str) -> list[Span]:
    return [Span(text.index(surface), text.index(surface) + len(surface), surface) for surface in surfaces]


def test_a_span_is_the_word_before_it_the_mean_of_its_own_and_the_word_behind() -> None:
    encoder, reader = made(ScriptedStateEngine("a"))
    ((_, words),), _ = reader.read([TEXT])
    ((user_, whole, ada, eve),), usage = encoder.encode([TEXT], [spans_of(TEXT, "user", "ada-bob", "ada", "eve")])
    nothing = np.zeros(8, dtype=np.float32)
    # Words: user, ada, -, bob, left, eve.
    assert user_[0] == pytest.approx(np.concatenate([nothing, words[0], words[1]]))
    assert whole[0] == pytest.approx(np.concatenate([words[0], words[1:4].mean(axis=0), words[4]]), abs=1e-6)
    assert ada[0] == pytest.approx(np.concatenate([words[0], words[1], words[2]]))
    assert eve[0] == pytest.approx(np.concatenate([words[4], words[5], nothing]))
    assert usage.prompt_tokens > 0


def test_the_same_name_in_two_places_is_told_apart() -> None:
    text = "root runs root"
    first, second = Span(0, 4, "root"), Span(10, 14, "root")
    ((one, other),), _ = made(ScriptedStateEngine("a"))[0].encode([text], [(first, second)])
    assert not np.allclose(one, other)


def test_texts_without_spans_are_not_read_and_order_stays() -> None:
    engine = ScriptedStateEngine("a")
    encoded, _ = made(engine)[0].encode(["x y", TEXT, " "], [(), spans_of(TEXT, "eve"), ()])
    assert [states.shape for states in encoded] == [(0, 1, 24), (1, 1, 24), (0, 1, 24)]
    assert len(engine.shown) == 1


def test_a_span_of_a_text_without_words_is_nothing() -> None:
    ((states,),), _ = made(ScriptedStateEngine("a"))[0].encode([" \t "], [(Span(0, 1, " "),)])
    assert word_units(" \t ") == []
    assert not states.any()
