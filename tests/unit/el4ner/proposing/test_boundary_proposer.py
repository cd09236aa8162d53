"""Spans by a member's states: what is planted there is found, and what is solved is kept in a file."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from el4ner.engines.base import Prompt, States
from el4ner.proposing import boundary_proposer
from el4ner.proposing.boundary_proposer import FLOOR, BoundaryProposer, KnownSentence, Proposed
from el4ner.proposing.word_reader import WordReader
from el4ner.types import Span
from tests.support.doubles import ScriptedStateEngine, ToldProgress, drawn

NAMES = ("anna", "berta", "clara", "dora", "elsa", "frida", "greta", "julia")
NOTHING = Proposed((), ())


def shows_names(noise: float = 0.2) -> ScriptedStateEngine:
    """Its states tell of each word whether it is a name, with some noise; also of names that the pool does not have."""

    def show(prompt: Prompt, tail: str) -> States:
        states = noise * drawn(prompt.user, tail)
        words = tail.split()
        states[:, 0] += 3.0 * (bool(words) and words[-1].rstrip(".").endswith("a"))
        return states

    return ScriptedStateEngine("a", show=show)


def reader(engine: ScriptedStateEngine | None = None, *, version: str = "v1") -> WordReader:
    def prompt(text: str) -> Prompt:
        return Prompt("", f"Text: {text}")

    return WordReader(engine or shows_names(), prompt, lambda text: f"Text: {text}", version=version)


def span(text: str, surface: str) -> Span:
    start = text.index(surface)
    return Span(start, start + len(surface), surface)


def sentence(text: str, *entities: str, proposed: Proposed = NOTHING) -> KnownSentence:
    places = tuple((span(text, surface).start, span(text, surface).end) for surface in entities)
    return KnownSentence(text, places, proposed)


POOL = [
    *(sentence(f"then {one} met {two} again", one, two) for one, two in zip(NAMES, NAMES[::-1], strict=True)),
    *(sentence(f"{name} miller went home", name) for name in NAMES),
    *(sentence(f"it was {name} who won", name) for name in NAMES),
    sentence("nobody came"),
    sentence("…"),
]


def opened(folder: Path, *, pool: list[KnownSentence] | None = None, **more: Any) -> BoundaryProposer:
    return BoundaryProposer.open(pool or POOL, reader(**more), folder, label="reading")


@pytest.fixture(scope="module")
def proposer(tmp_path_factory: pytest.TempPathFactory) -> BoundaryProposer:
    return opened(tmp_path_factory.mktemp("boundaries"))


def test_names_that_nobody_else_proposes_are_found_and_are_the_likeliest(proposer: BoundaryProposer) -> None:
    text = "then ida met paula again"
    (found,), usage = proposer.propose([text], [NOTHING])
    assert set(sorted(found, key=lambda one: -found[one])[:2]) == {span(text, "ida"), span(text, "paula")}
    assert min(found[span(text, "ida")], found[span(text, "paula")]) > 0.8
    assert all(text[one.start : one.end] == one.text for one in found)
    assert usage.prompt_tokens > 0


def assert_chosen(shares: list[float], words: int) -> None:
    """What is below the floor is there only while there is not one for every four words."""
    assert len(shares) <= words
    assert all(0 < share < 1 for share in shares)
    unlikely = sum(share < FLOOR for share in shares)
    assert unlikely == 0 or len(shares) <= math.ceil(words / 4)


def test_what_is_proposed_is_likely_enough_and_no_more_than_the_sentence_has_words(proposer: BoundaryProposer) -> None:
    texts = ["then ida met paula again", "ida", "nobody came home", "ida paula rosa vera nora mina lena"]
    found, _ = proposer.propose(texts, [NOTHING] * len(texts))
    for text, likely in zip(texts, found, strict=True):
        assert_chosen(list(likely.values()), len(text.split()))
    assert len(found[3]) == 7, "of some twenty that might be"


def test_texts_without_words_have_no_proposals(proposer: BoundaryProposer) -> None:
    found, _ = proposer.propose(["", " \n"], [NOTHING, NOTHING])
    assert found == [{}, {}]
    assert proposer.propose([], []) == ([], proposer.propose(["", " "], [NOTHING, NOTHING])[1])


def test_a_text_gets_the_same_beside_others(proposer: BoundaryProposer) -> None:
    texts = ["then ida met paula again", "vera went home"]
    together, _ = proposer.propose(texts, [NOTHING, NOTHING])
    assert together == [proposer.propose([text], [NOTHING])[0][0] for text in texts]


def test_what_others_propose_and_hardly_is_an_entity_is_left_out(tmp_path: Path) -> None:
    """In this pool they propose a name and the word before it, which is wrong always."""
    pool = [
        sentence(
            one.text, *(one.text[a:b] for a, b in one.entities), proposed=Proposed([span(one.text, one.text[:4])], ())
        )
        for one in POOL
    ]
    proposer = opened(tmp_path, pool=pool)
    text = "here ida met paula again"
    wrong, right = span(text, "here"), span(text, "ida")
    (found,), _ = proposer.propose([text], [Proposed([wrong, right], [wrong])])
    assert wrong not in found
    assert right in found


def test_a_proposal_that_ends_inside_of_a_word_is_as_likely_as_the_words_that_it_touches(
    proposer: BoundaryProposer,
) -> None:
    text = "then idas met paula again"
    part = Span(5, 8, "ida")
    (found,), _ = proposer.propose([text], [Proposed([part], ())])
    whole = found.get(Span(5, 9, "idas"))
    assert found.get(part) == whole
    (plain,), _ = proposer.propose(["then ida met paula again"], [Proposed([part], ())])
    assert plain[part] > 0.5


def test_white_space_that_no_name_may_hold_is_in_no_proposal(proposer: BoundaryProposer) -> None:
    text = "ida\tpaula came\n\nrosa"
    (found,), _ = proposer.propose([text], [NOTHING])
    assert {span(text, "ida"), span(text, "paula"), span(text, "rosa")} <= set(found)
    assert not any("\t" in one.text or "\n\n" in one.text for one in found)


# --- the pool's own ---


def test_the_pools_own_proposals_are_those_of_a_probe_that_never_saw_their_sentence(
    proposer: BoundaryProposer, tmp_path: Path
) -> None:
    assert set(proposer.left_out) == {known.text for known in POOL}
    for known in POOL:
        places = proposer.left_out[known.text]
        assert set(known.entities) <= set(places)
        assert_chosen(list(places.values()), len(known.text.split()))
    # States by chance tell nothing. Who had seen the sentence would know it by heart.
    blind = opened(tmp_path, engine=ScriptedStateEngine("a"))
    known_by_heart = sum(blind.left_out[one.text].get(place, 0.0) > 0.5 for one in POOL for place in one.entities)
    assert known_by_heart < 8


# --- the file ---


def test_what_was_solved_is_read_from_its_file_bit_by_bit(tmp_path: Path) -> None:
    first = opened(tmp_path)
    (file,) = tmp_path.iterdir()
    assert file.name == f"boundaries-{first.fingerprint}.npz"
    engine = shows_names()
    again = opened(tmp_path, engine=engine)
    assert engine.shown == [], "nothing is read again"
    assert again.fingerprint == first.fingerprint
    assert again.left_out == first.left_out
    assert again.rule == first.rule
    texts = ["then ida met paula again", "it was vera"]
    assert again.propose(texts, [NOTHING, NOTHING]) == first.propose(texts, [NOTHING, NOTHING])


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 and no more", b"nonsense"], ids=["empty", "cut", "another"])
def test_a_damaged_file_is_made_anew(tmp_path: Path, damage: bytes, caplog: pytest.LogCaptureFixture) -> None:
    first = opened(tmp_path)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    file.write_bytes(damage)
    with caplog.at_level(logging.WARNING):
        assert opened(tmp_path).left_out == first.left_out
    assert "damaged" in caplog.text
    assert file.read_bytes()[:4] == whole[:4]


def test_a_file_in_which_arrays_are_missing_is_made_anew(tmp_path: Path) -> None:
    first = opened(tmp_path)
    (file,) = tmp_path.iterdir()
    with np.load(file) as stored:
        arrays = {name: stored[name] for name in stored.files if name != "rule"}
    np.savez(file, **arrays)
    assert opened(tmp_path).rule == first.rule


def test_whatever_changes_the_proposals_is_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = POOL[0].text
    keys = {
        opened(tmp_path).fingerprint,
        opened(tmp_path, version="v2").fingerprint,
        opened(tmp_path, pool=[sentence(text, "anna"), *POOL[1:]]).fingerprint,
        opened(tmp_path, pool=[*POOL, sentence("one more for ida", "ida")]).fingerprint,
        opened(
            tmp_path, pool=[sentence(text, "anna", "julia", proposed=Proposed([span(text, "then")], ())), *POOL[1:]]
        ).fingerprint,
        opened(
            tmp_path, pool=[sentence(text, "anna", "julia", proposed=Proposed((), [span(text, "then")])), *POOL[1:]]
        ).fingerprint,
    }
    monkeypatch.setattr(boundary_proposer, "FLOOR", 0.5)
    keys.add(opened(tmp_path).fingerprint)
    assert len(keys) == len(list(tmp_path.iterdir())) == 7


def test_reading_a_pool_is_told_of(tmp_path: Path) -> None:
    progress = ToldProgress()
    BoundaryProposer.open(POOL, reader(), tmp_path, label="reading", progress=progress)
    assert progress.told == [("reading", len(POOL)), 16, len(POOL) - 16, "done"]
    progress.told.clear()
    BoundaryProposer.open(POOL, reader(), tmp_path, label="reading", progress=progress)
    assert progress.told == [], "nothing to wait for"
