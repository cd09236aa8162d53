"""Members in processes of their own: what they say, put together, is what one process with all of them says."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from el4ner.config import Settings, load_settings
from el4ner.engines.base import Engine, GenerateRequest, Prompt, States
from el4ner.engines.instant import InstantEngine
from el4ner.errors import ConfigError, DocumentError, MessageError
from el4ner.members_pipeline import MembersPipeline
from el4ner.pipeline import Pipeline
from el4ner.pools import Pool
from el4ner.proposing.boundary_proposer import BoundaryProposer
from el4ner.retrieval import make_retriever
from el4ner.serialize import (
    answers_from_json,
    answers_to_json,
    candidates_from_json,
    candidates_to_json,
    dumps,
    manifest_from_json,
    manifest_to_json,
)
from el4ner.stages.combine import Combiner
from el4ner.stages.pool_boundaries import make_proposers
from el4ner.stages.pool_evidence import make_evidence, make_sources
from el4ner.types import Document, DocumentAnswers, DocumentCandidates, DocumentTypes
from tests.support.answer_stores import DictStore
from tests.support.doubles import ScriptedEngine, ScriptedStateEngine, drawn
from tests.support.examples import examples
from tests.unit.el4ner.stages.test_pool_evidence import FakeEmbedder, pool

WORDS = ("Jackson", "Wilson", "Hamburg", "Magdeburg", "met", "in", "Anderson", "the", "Queen", "rained", "Coburg")
TEXTS = st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=9).map(" ".join), max_size=4).map(". ".join)
Make = Callable[[str], Engine]


def shows(name: str) -> Engine:
    """States by chance, of its own; and answers in context that depend on the surface."""
    return ScriptedStateEngine(
        name,
        show=lambda prompt, tail: drawn(name, prompt.user, tail),
        prefer=lambda tail, candidates: candidates[len(tail) % len(candidates)],
    )


def answers(name: str) -> Engine:
    """No states, and a distribution of its own over the types."""
    return InstantEngine(name)


def writes(name: str) -> Engine:
    """Lists words as spans, and types them: one of the types, or something that is none, or nothing."""

    def write(request: GenerateRequest) -> str:
        words = request.prompt.user.rsplit("Text: ", 1)[-1].split()
        if request.max_new_tokens == 96:
            return "".join(f" {word.strip('.')}\n-" for word in words[len(name) % 2 :: 2])
        labels = ("person", "place", "none", "soup")
        return "".join(
            f" {word.strip('.')}: {labels[(len(word) + ord(name[-1])) % 4]}\n-" for word in words if len(word) > 2
        )

    return ScriptedEngine(name, write=write)


def shows_and_writes(name: str) -> Engine:
    """Writes as the others, and shows states in which entities of the made-up pool begin and end clearly."""

    def show(prompt: Prompt, tail: str) -> States:
        states = 0.3 * drawn(name, prompt.user, tail)
        states[:, 0] += 2.0 * tail.endswith(("son", "burg"))
        return states

    made = ScriptedStateEngine(name, show=show)
    made.write = writes(name).write  # type: ignore[attr-defined]
    return made


class World:
    """An ensemble in one process, and the same in parts: both from the same files."""

    def __init__(
        self,
        folder: Path,
        members: Mapping[str, Make],
        parts: Sequence[Sequence[str]],
        *,
        method: Mapping[str, Any] | None = None,
        retrieval: Mapping[str, Any] | None = None,
        embedder: Any = None,
        hosted: Pool | None = None,
        proposer: str | None = None,
    ) -> None:
        self.names = list(members)
        self.settings = load_settings(
            Settings,
            environ={},
            overrides={
                "ensemble": {"members": self.names},
                "models": {
                    name: {"source": "none", "engine": "transformers" if name == proposer else "instant"}
                    for name in members
                },
                "pools": {"default": "p", "paths": {"p": "none"}},
                "method": {"repeats": "exact", **(method or {})},
                "retrieval": {"kind": "random", **(retrieval or {})},
            },
        )
        pools = {"p": hosted or pool()}
        retrievers = {"p": make_retriever("random", pools["p"], k=3)}
        common: dict[str, Any] = {"embedder": embedder, "folder": folder}

        def proposers(engines: Mapping[str, Engine]) -> Mapping[str, BoundaryProposer]:
            return make_proposers(self.settings, engines, pools, folder=folder)

        def whole(engines: Mapping[str, Engine]) -> Pipeline:
            common["proposers"] = proposers(engines)
            evidence = make_evidence(self.settings, engines, pools, retrievers, **common)
            return Pipeline(self.settings, engines, pools, retrievers, evidence, common["proposers"])

        def part(engines: Mapping[str, Engine]) -> MembersPipeline:
            # Who does not host the proposer has read the pool with it all the same; see load_members.
            sources = make_sources(self.settings, engines, pools, retrievers, **common)
            return MembersPipeline(self.settings, engines, pools, retrievers, sources, proposers(engines))

        def engines(names: Sequence[str]) -> dict[str, Engine]:
            return {name: members[name](name) for name in names}

        self.whole = whole(engines(self.names))
        self.parts = [(tuple(own), part(engines(own))) for own in parts]
        self.combiner = Combiner(self.settings, pools, folder)

    def extracted(self, documents: Sequence[Document]) -> list[DocumentCandidates]:
        return [good(found) for found in self.whole.extract(documents)]

    def said(self, candidates: Sequence[DocumentCandidates]) -> list[list[tuple[Sequence[str], DocumentAnswers]]]:
        """For each document every part's answer, as it is read from JSON."""

        def through_json(found: DocumentAnswers) -> DocumentAnswers:
            return answers_from_json(orjson.loads(dumps(answers_to_json(found))))

        by_part = [[(own, through_json(good(one))) for one in made.answer(candidates)] for own, made in self.parts]
        return [list(own) for own in zip(*by_part, strict=True)]

    def combined(self, candidates: Sequence[DocumentCandidates]) -> list[DocumentTypes]:
        return [self.combiner.types(parts, self.names) for parts in self.said(candidates)]


def good(found: Any) -> Any:
    assert not isinstance(found, DocumentError), found
    return found


def assert_equal(whole: DocumentTypes, combined: DocumentTypes) -> None:
    """Bit by bit: no float is compared approximately. Tokens are shared out among documents by whole numbers."""
    assert combined.document == whole.document
    assert combined.manifest == whole.manifest
    assert combined.sentences == whole.sentences
    assert [list(typed.votes) for item in combined.sentences for typed in item.typed] == [
        list(typed.votes) for item in whole.sentences for typed in item.typed
    ]


def cut(names: Sequence[str], ends: Sequence[bool]) -> list[list[str]]:
    """The names in parts: one ends behind each name that says so."""
    parts: list[list[str]] = [[]]
    for name, end in zip(names, [*ends, False], strict=False):
        parts[-1].append(name)
        if end:
            parts.append([])
    return [own for own in parts if own]


KINDS: dict[str, tuple[dict[str, Make], dict[str, Any], Any]] = {
    "paper": ({"a": writes, "bb": writes, "c": writes}, {"mode": "paper"}, None),
    "the mean of answers in context": ({"a": answers, "b": answers, "c": answers}, {}, None),
    "no kind of evidence": ({"a": shows, "b": answers}, {"evidence": []}, None),
    "states": ({"a": shows, "b": shows, "c": shows}, {}, None),
    "states, one sense a document": ({"a": shows, "b": shows}, {"one_sense": True}, None),
    "states, even": ({"a": shows, "b": shows}, {"weights": "even"}, None),
    "states, and a member without": ({"a": answers, "b": shows, "c": shows}, {}, None),
    "states and answers in context": (
        {"a": shows, "b": shows},
        {"evidence": ["neighbours", "prototypes", "in_context"]},
        None,
    ),
    "answers in context, weighed": ({"a": answers, "b": shows}, {"evidence": ["in_context"]}, None),
    "an embedder and answers in context": (
        {"a": answers, "b": shows},
        {"encoder": "embedder", "evidence": ["prototypes", "in_context"]},
        FakeEmbedder(),
    ),
    "boundaries": ({"a": shows, "b": shows, "c": shows}, {}, None),
    "boundaries, even": ({"a": shows, "b": shows}, {"weights": "even"}, None),
    "boundaries, and a member without states": ({"a": answers, "b": shows, "c": shows}, {}, None),
    "boundaries, and answers in context": ({"a": shows, "b": shows}, {"evidence": ["in_context"]}, None),
    "boundaries, and the mean of answers in context": ({"a": answers, "b": shows}, {"evidence": []}, None),
    "boundaries alone propose": ({"a": shows, "b": shows}, {"proposals": ["boundaries"]}, None),
    "places": ({"a": shows, "b": shows, "c": shows}, {}, None),
    "places, even": ({"a": shows, "b": shows, "c": shows}, {"weights": "even"}, None),
}
PROPOSER = "b"
"""Who reads boundaries or, in a pool of log lines, places, in the worlds whose names begin so."""


Worlds = Callable[[str, Sequence[bool]], World]


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Worlds:
    """Worlds by kind and cut: made once, since a pool has to be read and weighed."""
    made: dict[tuple[str, tuple[bool, ...]], World] = {}
    folders: dict[str, Path] = {}

    def get(kind: str, ends: Sequence[bool]) -> World:
        members, method, embedder = KINDS[kind]
        key = (kind, tuple(ends[: len(members) - 1]))
        if key not in made:
            folder = folders.setdefault(kind, tmp_path_factory.mktemp("evidence"))
            made[key] = World(
                folder,
                members,
                cut(list(members), key[1]),
                method=method,
                embedder=embedder,
                hosted=replace(pool(), text_kind="log") if kind.startswith("places") else None,
                proposer=PROPOSER if kind.startswith(("boundaries", "places")) else None,
            )
        return made[key]

    return get


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=examples(25), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(TEXTS, min_size=1, max_size=4), ends=st.tuples(st.booleans(), st.booleans()), data=st.data())
def test_what_all_members_said_apart_is_decided_as_in_one_process(
    worlds: Worlds, kind: str, texts: list[str], ends: Sequence[bool], data: st.DataObject
) -> None:
    world = worlds(kind, ends)
    found = world.extracted([Document(str(number), text) for number, text in enumerate(texts)])
    whole = [good(one) for one in world.whole.classify(found)]
    for parts, expected in zip(world.said(found), whole, strict=True):
        in_any_order = data.draw(st.permutations(parts))
        assert_equal(expected, world.combiner.types(in_any_order, world.names))


WRITING: dict[str, tuple[dict[str, Any], str | None]] = {
    "paper": ({"mode": "paper"}, None),
    "scored": ({"proposals": ["chunks", "lexicon", "models"], "evidence": []}, None),
    "boundaries": ({"proposals": ["boundaries", "chunks", "lexicon", "models"], "evidence": []}, "a"),
    "boundaries and models": ({"proposals": ["boundaries", "models"], "evidence": []}, "bb"),
}


@settings(deadline=None, max_examples=examples(25))
@given(text=TEXTS, ends=st.tuples(st.booleans(), st.booleans()), kind=st.sampled_from(sorted(WRITING)), data=st.data())
def test_the_union_of_what_members_proposed_apart_is_that_of_one_process(
    tmp_path_factory: pytest.TempPathFactory, text: str, ends: Sequence[bool], kind: str, data: st.DataObject
) -> None:
    method, proposer = WRITING[kind]
    members: dict[str, Make] = {"c": writes, "a": writes, "bb": writes}
    if proposer is not None:
        members[proposer] = shows_and_writes
    world = World(tmp_path_factory.getbasetemp(), members, cut(list(members), ends), method=method, proposer=proposer)
    document = Document("d", text)
    parts = [
        (own, candidates_from_json(orjson.loads(dumps(candidates_to_json(good(made.extract([document])[0]))))))
        for own, made in world.parts
    ]
    combined = world.combiner.candidates(data.draw(st.permutations(parts)), world.names)
    assert combined == world.extracted([document])[0]


# --- without some of the members ---


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_member_the_others_decide_and_the_manifest_names_it(worlds: Worlds, kind: str) -> None:
    world = worlds(kind, (True, True))
    found = world.extracted([Document("d", "Jackson met Wilson in Hamburg. The road to Magdeburg was quiet.")])
    (parts,) = world.said(found)
    for left_out in range(len(parts)):
        present = [part for number, part in enumerate(parts) if number != left_out]
        combined = world.combiner.types(present, world.names)
        assert combined.manifest.missing_members == (world.names[left_out],)
        assert set(combined.manifest.members) == set(world.names) - {world.names[left_out]}
        assert manifest_from_json(manifest_to_json(combined.manifest)) == combined.manifest
        typed = [one for item in combined.sentences for one in item.typed]
        assert typed
        assert all(world.names[left_out] not in one.votes and 0 <= one.confidence <= 1 for one in typed)
        assert all("boundaries" not in one.votes for one in typed), "it says nothing about types"


def test_the_weights_of_those_who_answered_keep_the_sum_of_all(tmp_path: Path) -> None:
    world = World(tmp_path, {"a": shows, "b": shows, "c": shows}, [["a"], ["b"], ["c"]])
    (parts,) = world.said(world.extracted([Document("d", "Jackson met Wilson.")]))
    calibration = world.whole.calibration("p")
    assert calibration is not None
    steps, whole = [step.source for step in calibration.steps], calibration.steps[-1].combination
    width = len(whole.weights) // 3
    by_source = {name: whole.weights[place * width : (place + 1) * width] for place, name in enumerate(steps)}
    world.combiner.types(parts[1:], world.names)
    (weighed,) = [found for found in world.combiner._weighings["p"]._known.values() if found is not None]
    assert weighed.sources == tuple(name for name in steps if name != "a")
    own = [weight for name in weighed.sources for weight in by_source[name]]
    assert sum(weighed.combination.weights) == pytest.approx(sum(whole.weights))
    assert weighed.combination.weights == pytest.approx([one * sum(whole.weights) / sum(own) for one in own])
    assert (weighed.combination.threshold, weighed.combination.slope) == (whole.threshold, whole.slope)


def test_demonstrations_are_those_of_the_first_member_that_answered(tmp_path: Path) -> None:
    world = World(tmp_path, {"a": writes, "bb": writes}, [["a"], ["bb"]], method={"mode": "paper"})
    (found,) = world.extracted([Document("d", "Jackson met Wilson.")])
    shown = [(5, 1), (2, 3)]
    parts = [
        ([name], DocumentCandidates(found.document, found.manifest, tuple(
            type(item)(item.sentence, own, item.candidates) for item in found.sentences
        )))
        for name, own in zip(world.names, shown, strict=True)
    ]  # fmt: skip
    assert world.combiner.candidates(parts[::-1], world.names).sentences[0].demonstrations == (5, 1)
    assert world.combiner.candidates(parts[1:], world.names).sentences[0].demonstrations == (2, 3)


# --- what is refused ---


def test_without_a_calibration_it_says_how_to_get_one(tmp_path: Path) -> None:
    world = World(tmp_path, {"a": shows, "b": shows}, [["a"], ["b"]])
    (parts,) = world.said(world.extracted([Document("d", "Jackson met Wilson.")]))
    for file in tmp_path.glob("calibration-*"):
        file.unlink()
    with pytest.raises(ConfigError, match="el4ner calibrate --fresh p"):
        world.combiner.types(parts, world.names)


def test_a_calibration_that_does_not_name_its_sources_does_for_the_whole_ensemble_only(tmp_path: Path) -> None:
    """As el4ner 0.1 wrote it."""
    world = World(tmp_path, {"a": shows, "b": shows}, [["a"], ["b"]])
    candidates = world.extracted([Document("d", "Jackson met Wilson.")])
    (parts,) = world.said(candidates)
    (file,) = tmp_path.glob("calibration-*")
    stored = orjson.loads(file.read_bytes())
    del stored["sources"]
    file.write_bytes(orjson.dumps(stored))
    assert_equal(good(world.whole.classify(candidates)[0]), world.combiner.types(parts, world.names))
    with pytest.raises(ConfigError, match="--fresh"):
        world.combiner.types(parts[1:], world.names)


def test_a_calibration_of_another_ensemble_is_not_taken(tmp_path: Path) -> None:
    World(tmp_path, {"a": shows, "b": shows, "c": shows}, [["a", "b", "c"]])
    world = World(tmp_path, {"a": shows, "b": shows}, [["a"], ["b"]])
    (parts,) = world.said(world.extracted([Document("d", "Jackson met Wilson.")]))
    assert world.combiner.types(parts, world.names).manifest.missing_members == ()
    mine = tmp_path / f"calibration-{world.whole.calibration('p').key}.json"  # type: ignore[union-attr]
    mine.unlink()
    fresh = Combiner(world.settings, world.whole.pools, tmp_path)
    with pytest.raises(ConfigError, match="el4ner calibrate"):
        fresh.types(parts, world.names)


def test_of_members_of_different_releases_those_that_were_weighed_together_decide(tmp_path: Path) -> None:
    """Both are replaced, one after the other: a document in flight has the new one's answer and the old one's."""

    def renewed(name: str) -> Engine:
        made = shows(name)
        made.fingerprint = f"{name}-renewed"  # type: ignore[misc]
        return made

    old = World(tmp_path, {"a": shows, "b": shows}, [["a"], ["b"]])
    new = World(tmp_path, {"a": renewed, "b": renewed}, [["a"], ["b"]])
    candidates = old.extracted([Document("d", "Jackson met Wilson.")])
    mixed = [new.said(candidates)[0][0], old.said(candidates)[0][1]]
    combined = old.combiner.types(mixed, old.names)
    (missing,) = combined.manifest.missing_members
    assert set(combined.manifest.members) | {missing} == {"a", "b"}
    assert all(missing not in typed.votes for item in combined.sentences for typed in item.typed)


def test_members_that_depend_on_each_other_cannot_be_apart(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"method\.adaptive"):
        World(tmp_path, {"a": shows, "b": shows}, [["a"], ["b"]], method={"adaptive": True})


def test_answers_about_another_pool_are_refused(tmp_path: Path) -> None:
    world = World(tmp_path, {"a": shows, "b": shows}, [["a"], ["b"]])
    (parts,) = world.said(world.extracted([Document("d", "Jackson met Wilson.")]))
    other = pool({"person": "a human being", "place": "a town or a country"})
    with pytest.raises(DocumentError, match="give all workers the same pool"):
        Combiner(world.settings, {"p": other}, tmp_path).types(parts, world.names)
    with pytest.raises(DocumentError, match="no pool 'p' is hosted here"):
        Combiner(world.settings, {"q": other}, tmp_path).types(parts, world.names)


def test_a_union_with_too_many_spans_is_refused(tmp_path: Path) -> None:
    method = {"mode": "paper", "max_spans": 3}
    world = World(tmp_path, {"a": writes, "bb": writes}, [["a"], ["bb"]], method=method)
    document = Document("d", "Jackson met Wilson in Hamburg")
    parts = [(own, good(made.extract([document])[0])) for own, made in world.parts]
    with pytest.raises(DocumentError, match=r"5 spans .* method\.max_spans = 3"):
        world.combiner.candidates(parts, world.names)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda item: item["said"].pop(), "one said for each of"),
        (lambda item: item["said"][0].pop(), r"expected \d+ equally long lists"),
        (lambda item: item["said"][0][0].pop(), r"expected \d+ equally long lists"),
        (lambda item: item["votes"].append({}), "one said for each of"),
        (lambda item: item["candidates"][0].update(start=1), "is not the span"),
    ],
)
def test_answers_that_do_not_fit_their_candidates_are_no_message(
    tmp_path: Path, change: Callable[[Any], Any], said: str
) -> None:
    world = World(tmp_path, {"a": shows, "b": shows}, [["a"], ["b"]], method={"weights": "even"})
    (found,) = world.parts[0][1].answer(world.extracted([Document("d", "Jackson met Wilson.")]))
    value = orjson.loads(dumps(answers_to_json(good(found))))
    change(value["sentences"][0])
    with pytest.raises(MessageError, match=said):
        answers_from_json(value)


# --- repeats ---


def test_a_text_that_was_answered_before_is_not_asked_again_and_answered_the_same(tmp_path: Path) -> None:
    engines = {name: shows(name) for name in ("a", "b")}
    world = World(tmp_path, {name: lambda name: engines[name] for name in engines}, [["a"], ["b"]])
    first, second = world.extracted([Document("1", "Jackson met Wilson."), Document("2", "Jackson met Wilson.")])
    before = world.said([first])
    counts = [len(engine.shown) for engine in engines.values()]  # type: ignore[attr-defined]
    again = world.said([second])
    assert [len(engine.shown) for engine in engines.values()] == counts  # type: ignore[attr-defined]
    for (_, one), (_, other) in itertools.chain.from_iterable(
        zip(own, others, strict=True) for own, others in zip(before, again, strict=True)
    ):
        assert one.sentences == other.sentences


def test_members_that_compare_with_another_reading_of_the_pool_share_no_answers(tmp_path: Path) -> None:
    """As where the proposer, which is hosted elsewhere, has other weights by now."""
    world, store = World(tmp_path, {"a": shows, "b": shows}, [["a"], ["b"]]), DictStore()
    found = world.extracted([Document("d", "Jackson met Wilson in Hamburg.")])
    (_, part), _ = world.parts
    (source,) = part._made["p"].sources
    for read in ("now", "now", "later"):
        source.fingerprint = read
        made = MembersPipeline(
            world.settings, part.engines, part.pools, part._retrievers, {"p": [source]}, answers=store
        )
        good(made.answer(found)[0])
    assert (store.hits["classify"], store.misses["classify"]) == (1, 2)
