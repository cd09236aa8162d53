"""From settings to entities: a small labelled pool, members that show their states or do not, and who then decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from el4ner.config import Settings, load_settings
from el4ner.engines.base import Engine, Prompt, States
from el4ner.errors import DocumentError
from el4ner.loader import pipeline_from
from el4ner.participation import STAGES, needs_embedder, shows_demonstrations
from el4ner.pipeline import Pipeline
from el4ner.pools import Pool, PoolSentence
from el4ner.retrieval import make_retriever
from el4ner.stages.pool_boundaries import make_proposers
from el4ner.stages.pool_evidence import make_evidence
from el4ner.tagger import Tagger
from el4ner.types import Document, DocumentTypes, Entity, Mode, Span
from tests.support.doubles import ScriptedEngine, ScriptedStateEngine, states_by_type

NAMES = ("Anderson", "Benson", "Carlson", "Davidson", "Ericson", "Ferguson", "Gibson", "Hobson")
TOWNS = ("Augsburg", "Bamberg", "Coburg", "Duisburg", "Edinburg", "Freiburg")
TYPES = {"person": "a human being", "place": "a town"}


def type_of(surface: str) -> str:
    """What a perfect reader sees in a name."""
    name = surface.removeprefix("- ").removesuffix(":")
    if " " in name:
        return "none"
    return "person" if name.endswith("son") else "place" if name.endswith(("burg", "berg")) else "none"


def labelled(text: str) -> PoolSentence:
    found, at = [], 0
    for word in text.rstrip(".").split(" "):
        if type_of(word) != "none":
            found.append((Span(at, at + len(word), word), type_of(word)))
        at += len(word) + 1
    return PoolSentence(text, tuple(found))


def pool(types: Mapping[str, str] = TYPES) -> Pool:
    texts = [f"{name} left {TOWNS[number % 6]} on Monday." for number, name in enumerate(NAMES)]
    texts += [f"The road to {town} was closed by {NAMES[number]}." for number, town in enumerate(TOWNS)]
    texts += ["It rained all day.", "Nobody saw the Queen."]
    return Pool("p", types, tuple(labelled(text) for text in texts))


DOCUMENT = Document("d", "Jackson met Wilson in Hamburg. The road to Magdeburg was quiet.")
TRUTH = [("Jackson", "person"), ("Wilson", "person"), ("Hamburg", "place"), ("Magdeburg", "place")]
LABELS = ("person", "place", "none")


def reader(name: str, *, noise: float = 0.3, context_length: int = 8192) -> ScriptedStateEngine:
    """A member whose states tell types apart, and whose answers in context are always the first type."""
    return ScriptedStateEngine(name, show=states_by_type(LABELS, type_of, noise=noise), context_length=context_length)


def knows(tail: str, candidates: tuple[str, ...]) -> str:
    return next(one for one in candidates if one.strip() == type_of(tail))


def answerer(name: str) -> ScriptedEngine:
    """A member that shows no states and answers rightly in context."""
    return ScriptedEngine(name, prefer=knows)


class FakeEmbedder:
    """Tells types apart, of no language model's making."""

    fingerprint = "fake"

    def embed(self, texts: Sequence[str]) -> States:
        show = states_by_type(LABELS, type_of)
        return np.asarray([show(Prompt("", ""), text)[0] for text in texts], np.float32).reshape(len(texts), 8)

    def embed_in_context(self, texts: Sequence[str], spans: Sequence[Sequence[tuple[int, int]]]) -> States:
        return self.embed([text[a:b] for text, own in zip(texts, spans, strict=True) for a, b in own])


def assembled(
    folder: Path,
    *members: Engine,
    method: Mapping[str, Any] | None = None,
    embedder: Any = None,
    hosted: Pool | None = None,
    proposer: str | None = None,
) -> Pipeline:
    """As :func:`~el4ner.loader.load_pipeline` does it, with engines that are there already. ``proposer``: who reads
    boundaries; None: nobody does."""
    names = [member.name for member in members]
    settings = load_settings(
        Settings,
        environ={},
        overrides={
            "ensemble": {"members": names},
            "models": {
                name: {"source": "none", "engine": "transformers" if name == proposer else "instant"} for name in names
            },
            "pools": {"default": "p", "paths": {"p": "none"}},
            "method": {"repeats": "off", **(method or {})},
        },
    )
    engines = {member.name: member for member in members}
    pools = {"p": hosted or pool()}
    retrievers = {"p": make_retriever("random", pools["p"], k=3)}
    proposers = make_proposers(settings, engines, pools, folder=folder)
    evidence = make_evidence(
        settings,
        engines,
        pools,
        retrievers,
        embedder=embedder,
        folder=folder,
        proposers=proposers,
    )
    return Pipeline(settings, engines, pools, retrievers, evidence, proposers)


def tag(made: Pipeline) -> list[Entity]:
    (tagged,) = Tagger(made).tag([DOCUMENT])
    return list(tagged.entities)


def found(made: Pipeline) -> list[tuple[str, str]]:
    return [(entity.text, entity.type) for entity in tag(made)]


def sources(made: Pipeline) -> list[str]:
    calibration = made.calibration("p")
    return [step.source for step in calibration.steps] if calibration is not None else []


def typed(made: Pipeline) -> DocumentTypes:
    (result,) = made.classify(made.extract([DOCUMENT]))  # type: ignore[arg-type]
    assert isinstance(result, DocumentTypes)
    return result


def test_states_and_a_pool_find_names_that_the_pool_does_not_have(tmp_path: Path) -> None:
    one, other = reader("a"), reader("b", noise=0.6)
    made = assembled(tmp_path, one, other)
    entities = tag(made)
    assert [(entity.text, entity.type) for entity in entities] == TRUTH
    for entity in entities:
        assert DOCUMENT.text[entity.start : entity.end] == entity.text
        assert 0.5 < entity.confidence <= 1
        assert entity.votes["a"] == entity.type
        assert set(entity.votes) == {"a", "b"}
        assert entity.verdict is not None
        assert entity.verdict.verifier is None, "nobody validates"
    assert one.scored == other.scored == one.generated == other.generated == []


def test_the_better_member_is_asked_first_and_the_other_where_it_is_unsure(tmp_path: Path) -> None:
    weak, strong = reader("weak", noise=1.0), reader("strong", noise=0.1)
    made = assembled(tmp_path, weak, strong, method={"adaptive": True})
    assert sources(made) == ["strong", "weak"]
    weak.shown.clear()
    entities = tag(made)
    asked = {tail.removeprefix("- ") for request in weak.shown for tail in request.tails}
    for entity in entities:
        assert set(entity.votes) == ({"strong", "weak"} if entity.text in asked else {"strong"})


def test_unless_told_otherwise_every_member_votes_on_every_span(tmp_path: Path) -> None:
    made = assembled(tmp_path, reader("a"), reader("b"))
    spans = [span for item in typed(made).sentences for span in item.typed]
    assert len(spans) > len(TRUTH)
    assert all(set(span.votes) == {"a", "b"} for span in spans)


def test_a_start_with_what_is_on_disk_reads_nothing(tmp_path: Path) -> None:
    first = assembled(tmp_path, reader("a"))
    again = reader("a")
    second = assembled(tmp_path, again)
    assert again.shown == []
    assert second.manifest("classify", "p") == first.manifest("classify", "p")
    assert found(second) == found(first) == TRUTH


@pytest.mark.parametrize(
    "changed",
    [
        {"hosted": pool({"person": "a human being", "place": "a town or a country"})},
        {"method": {"proposals": ["lexicon"]}},
        {"method": {"evidence": ["prototypes"]}},
    ],
    ids=["a type's description", "who proposes", "the kinds of evidence"],
)
def test_what_changes_the_answers_is_not_answered_from_disk(tmp_path: Path, changed: dict[str, Any]) -> None:
    one, other = assembled(tmp_path, reader("a")), assembled(tmp_path, reader("a"), **changed)
    fresh = assembled(tmp_path / "empty", reader("a"), **changed)
    assert other.manifest("classify", "p") == fresh.manifest("classify", "p")
    assert other.manifest("classify", "p").evidence != one.manifest("classify", "p").evidence


def test_a_members_prompt_is_the_sentence_with_the_pools_types_and_no_demonstrations(tmp_path: Path) -> None:
    engine = reader("a")
    made = assembled(tmp_path, engine)
    engine.shown.clear()
    found(made)
    (first, second) = engine.shown
    assert first.prompt.user == "Text: Jackson met Wilson in Hamburg."
    assert second.prompt.user == "Text: The road to Magdeburg was quiet."
    assert "- place: a town" in first.prompt.system
    assert "- Jackson" in first.tails
    assert all(not tail.endswith(":") for tail in first.tails)


def test_members_that_show_no_states_are_asked_in_context_and_the_mean_decides(tmp_path: Path) -> None:
    one, other = answerer("a"), answerer("b")
    made = assembled(tmp_path, one, other)
    assert made.calibration("p") is None
    assert made.manifest("classify", "p").evidence is None
    assert found(made) == TRUTH
    assert one.scored
    assert other.scored
    assert list(tmp_path.iterdir()) == [], "nothing is estimated"


def test_a_member_without_states_is_asked_in_context_beside_one_that_shows_its_own(tmp_path: Path) -> None:
    states, context = reader("states", noise=1.0), answerer("context")
    made = assembled(tmp_path, context, states)
    assert sources(made) == ["states", "context in context"]
    context.scored.clear()
    assert found(made) == TRUTH
    assert all(set(entity.votes) == {"states", "context"} for entity in tag(made))
    assert all("Text: " in request.prompt.user for request in context.scored)
    assert states.scored == []


def test_in_context_a_member_is_asked_about_what_states_leave_open(tmp_path: Path) -> None:
    states, context = reader("states"), answerer("context")
    made = assembled(tmp_path, states, context, method={"adaptive": True})
    context.scored.clear()
    result = typed(made)
    asked = {item.tail.removeprefix("- ").removesuffix(":") for request in context.scored for item in request.items}
    spans = {span.candidate.span.text: set(span.votes) for item in result.sentences for span in item.typed}
    assert asked < set(spans)
    assert all(votes == ({"states", "context"} if text in asked else {"states"}) for text, votes in spans.items())


def test_pool_sentences_are_never_their_own_demonstrations(tmp_path: Path) -> None:
    context = answerer("a")
    assembled(tmp_path, context, method={"evidence": ["in_context"]})
    assert context.scored
    for request in context.scored:
        asked = request.prompt.user.rsplit("Text: ", 1)[1]
        assert request.prompt.user.count(asked) == 1


def test_answers_in_context_alone_can_be_weighed_too(tmp_path: Path) -> None:
    good, bad = answerer("good"), ScriptedEngine("bad", prefer=lambda tail, candidates: candidates[0])
    made = assembled(tmp_path, bad, good, method={"evidence": ["in_context"]})
    assert sources(made) == ["good in context", "bad in context"]
    assert found(made) == TRUTH
    assert made.manifest("classify", "p").evidence
    # The plain mean would believe the bad one as much.
    even = assembled(tmp_path, bad, good, method={"evidence": ["in_context"], "weights": "even"})
    assert even.calibration("p") is None
    assert found(even) != TRUTH


def test_states_are_not_asked_for_where_only_answers_in_context_count(tmp_path: Path) -> None:
    engine = reader("a")
    made = assembled(tmp_path, engine, method={"evidence": ["in_context"]})
    found(made)
    assert sources(made) == ["a in context"]
    assert engine.shown == []


def test_states_and_answers_in_context_of_one_member_are_one_vote(tmp_path: Path) -> None:
    engine = reader("a")
    engine.prefer = knows
    made = assembled(tmp_path, engine, method={"evidence": ["neighbours", "in_context"]})
    assert sources(made) == ["a", "a in context"]
    assert [(entity.text, entity.type, dict(entity.votes)) for entity in tag(made)] == [
        (text, label, {"a": label}) for text, label in TRUTH
    ]


def test_even_weights_need_no_estimate(tmp_path: Path) -> None:
    made = assembled(tmp_path, reader("a"), reader("b"), method={"weights": "even"})
    assert found(made) == TRUTH
    made_files = sorted(path.suffix for path in tmp_path.iterdir())
    assert made_files == [".lock", ".npz", ".npz", ".sqlite", ".sqlite"], "what was read, no weights"
    calibration = made.calibration("p")
    assert calibration is not None
    assert calibration.figures is None
    assert len(set(calibration.steps[-1].combination.weights)) == 1
    assert all(set(entity.votes) == {"a", "b"} for entity in tag(made))


def test_without_a_language_model_the_embedder_decides(tmp_path: Path) -> None:
    member = reader("a")
    made = assembled(tmp_path, member, method={"encoder": "embedder"}, embedder=FakeEmbedder())
    assert sources(made) == ["embedder"]
    assert found(made) == TRUTH
    assert {frozenset(entity.votes) for entity in tag(made)} == {frozenset({"embedder"})}
    assert (member.shown, member.scored, member.generated) == ([], [], [])


@pytest.mark.parametrize("method", [{"mode": "paper"}, {"evidence": []}], ids=str)
def test_paper_mode_and_no_kind_of_evidence_read_nothing(tmp_path: Path, method: dict[str, Any]) -> None:
    engine = reader("a")
    made = assembled(tmp_path, engine, method=method)
    typed(made)
    assert made.calibration("p") is None
    assert made.manifest("classify", "p").evidence is None
    assert engine.shown == []
    assert list(tmp_path.iterdir()) == []


class CountingEmbedder(FakeEmbedder):
    """Counts how often it is loaded, and texts that are embedded."""

    fingerprint = "counting"

    def __init__(self) -> None:
        self.loaded = self.embedded = 0

    def load(self) -> None:
        self.loaded += 1

    def embed(self, texts: Sequence[str], *, progress: object = None) -> States:
        self.embedded += len(texts)
        return super().embed(texts)


@pytest.mark.parametrize(
    ("method", "members", "stages", "shows", "read"),
    [
        ({}, (reader("a"), reader("b")), STAGES, False, False),
        ({}, (reader("a"), answerer("b")), STAGES, True, True),
        ({}, (answerer("a"),), STAGES, True, True),
        ({"evidence": ["neighbours", "in_context"]}, (reader("a"),), STAGES, True, True),
        ({"evidence": []}, (reader("a"),), STAGES, True, True),
        ({"proposals": ["chunks", "models"]}, (reader("a"),), STAGES, True, True),
        ({"validation": "soft"}, (reader("a"),), STAGES, True, True),
        ({"mode": "paper"}, (answerer("a"),), STAGES, True, True),
        ({}, (reader("a"),), ["extract"], False, False),
        ({"validation": "soft"}, (reader("a"),), ["extract"], True, True),
        ({"validation": "soft"}, (reader("a"),), ["classify"], True, False),
        ({}, (reader("a"),), ["classify"], False, False),
    ],
)
def test_nothing_is_retrieved_where_no_stage_of_any_process_shows_it(
    tmp_path: Path, method: dict[str, Any], members: tuple[Engine, ...], stages: Sequence[Any], shows: bool, read: bool
) -> None:
    names = [member.name for member in members]
    settings = load_settings(
        Settings,
        environ={},
        overrides={
            "ensemble": {"members": names},
            "models": {
                member.name: {
                    "source": "none",
                    "engine": "transformers" if isinstance(member, ScriptedStateEngine) else "instant",
                }
                for member in members
            },
            "pools": {"default": "p", "paths": {"p": "none"}},
            "method": {"repeats": "off", **method},
        },
    )
    assert shows_demonstrations(settings) is shows
    assert needs_embedder(settings) is shows
    embedder: Any = CountingEmbedder()
    engines = {member.name: member for member in members}
    made = pipeline_from(settings, engines, {"p": pool()}, embedder, cache_dir=tmp_path, stages=stages)
    assert (embedder.loaded > 0) is read
    assert bool(list((tmp_path / "index").glob("*"))) is read
    if "extract" in stages and settings.method.mode is not Mode.PAPER:
        (extracted,) = made.extract([DOCUMENT])
        assert not isinstance(extracted, DocumentError)
        assert any(sentence.demonstrations for sentence in extracted.sentences) is read
        assert (embedder.embedded > 0) is read
    assert made.manifest("extract", "p").retriever.startswith("span-" if shows else "none")


def test_only_types_are_found_by_evidence_and_say_so(tmp_path: Path) -> None:
    made = assembled(tmp_path, reader("a"))
    assert made.manifest("classify", "p").evidence
    assert made.manifest("extract", "p").evidence is None
    assert made.manifest("validate", "p").evidence is None
    assert typed(made).manifest.evidence == made.manifest("classify", "p").evidence
    early = assembled(tmp_path, reader("a"), method={"adaptive": True})
    assert early.manifest("classify", "p").evidence != made.manifest("classify", "p").evidence


def test_a_pool_without_any_span_can_be_used_and_is_sure_of_nothing(tmp_path: Path) -> None:
    bare = Pool("p", TYPES, (PoolSentence("…", ()), PoolSentence("—", ())))
    for _ in range(2):  # the second time from disk
        made = assembled(tmp_path, reader("a"), hosted=bare)
        assert all(span.confidence <= 0.5 for item in typed(made).sentences for span in item.typed)
