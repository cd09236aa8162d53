"""method.priors: answers that go by the stream's density and mix are the same in one process and where members run
apart, and say that they depend on the stream."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from el4ner.evidence import stream_mix
from el4ner.evidence.stream_mix import Priors
from el4ner.types import Document
from tests.unit.el4ner.stages.test_combine import World, assert_equal, good, shows

TEXTS = ("Jackson met Wilson in Hamburg", "Queen Anderson rained", "Magdeburg met Coburg", "the Queen met Jackson")


def world(folder: Path, priors: str) -> World:
    return World(folder, {"a": shows, "b": shows}, [["a"], ["b"]], method={"priors": priors, "repeats": "off"})


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few candidates are enough for an estimate."""
    monkeypatch.setattr(stream_mix, "ESTIMATE_EVERY", 4)
    monkeypatch.setattr(stream_mix, "FEWEST_ENTITIES", 0.5)


def documents() -> list[Document]:
    return [Document(str(number), TEXTS[number % len(TEXTS)]) for number in range(12)]


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("priors", ["density", "stream"])
def test_members_apart_follow_the_stream_as_one_process_does(tmp_path: Path, priors: str) -> None:
    made = world(tmp_path, priors)
    candidates = made.extracted(documents())
    whole = [good(typed) for typed in made.whole.classify(candidates)]
    combined = made.combined(candidates)
    for one, other in zip(whole, combined, strict=True):
        assert_equal(one, other)
        assert str(one.manifest.evidence).endswith(f"-{priors}")
    assert made.combiner.mixes["p"].report == made.whole.mixes["p"].report is not None


@pytest.mark.usefixtures("soon")
def test_answers_depend_on_the_stream_only_if_that_was_asked_for(tmp_path: Path) -> None:
    last = documents()[-1:]
    for priors in get_args(Priors):
        made = world(tmp_path, priors)
        (alone,) = map(good, made.whole.classify(made.extracted(last)))
        made.whole.classify(made.extracted(documents() * 4))
        (behind_others,) = map(good, made.whole.classify(made.extracted(last)))
        assert (alone.sentences == behind_others.sentences) == (priors == "pool")


def test_no_mix_is_known_of_members_that_do_not_decide(tmp_path: Path) -> None:
    made = world(tmp_path, "pool")
    assert [part.mixes for _, part in made.parts] == [{}, {}]
    assert made.combiner.mixes == {}, "before the first document"
