"""``retrieval.pool_spans = "models"``: a pool's sentences are found by what the members propose in them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from el4ner import loader
from el4ner.config import Settings, load_settings
from el4ner.engines.base import GenerateRequest
from el4ner.errors import ConfigError
from el4ner.participation import STAGES, StageName, members_of
from el4ner.pipeline import Pipeline
from el4ner.pools import Pool, PoolSentence
from el4ner.types import Document, DocumentCandidates, Span
from tests.support.doubles import ScriptedEngine
from tests.unit.el4ner.retrieval.test_retrieval import Cache, LetterEmbedder

POOL = Pool(
    "p",
    {"place": "a place"},
    (
        PoolSentence("Rome has wine.", ((Span(0, 4, "Rome"), "place"),)),
        PoolSentence("A dog ran.", ()),
        PoolSentence("Bonn has bread.", ((Span(0, 4, "Bonn"), "place"),)),
    ),
)


class Embedder(LetterEmbedder):
    def load(self) -> None:
        pass


def lists(name: str, *words: str) -> ScriptedEngine:
    """Proposes those of the words that are in the sentence."""

    def write(request: GenerateRequest) -> str:
        sentence = request.prompt.user.rpartition("Text: ")[2]
        return "\n- ".join(["", *(word for word in words if word in sentence)]).removeprefix("\n-")

    return ScriptedEngine(name, write=write)


def settings_of(names: Sequence[str], spans: str = "models", **sections: Mapping[str, Any]) -> Settings:
    overrides = {
        "ensemble": {"members": list(names)},
        "models": {name: {"source": "none", "engine": "instant"} for name in names},
        "pools": {"default": "p", "paths": {"p": "none"}},
        "method": {"mode": "paper", "repeats": "off", "validation": "off", **sections.get("method", {})},
        "retrieval": {"k": 1, "pool_spans": spans},
    }
    return load_settings(Settings, environ={}, overrides=overrides)


def assembled(
    folder: Path,
    *members: ScriptedEngine,
    spans: str = "models",
    stages: Collection[StageName] = STAGES,
    pool: Pool = POOL,
    cache: Any = None,
    **sections: Mapping[str, Any],
) -> Pipeline:
    settings = settings_of([member.name for member in members], spans, **sections)
    engines = {member.name: member for member in members}
    if stages == ["validate"]:
        engines = {members[-1].name: members[-1]}
    embedder: Any = Embedder()
    return loader.pipeline_from(settings, engines, {"p": pool}, embedder, stages=stages, cache=cache, cache_dir=folder)


def shown(pipeline: Pipeline, text: str) -> list[str]:
    """The demonstrations that the text gets."""
    (found,) = pipeline.extract([Document("d", text, "p")])
    assert isinstance(found, DocumentCandidates)
    pool = pipeline.pools["p"]
    return [pool.sentences[index].text for index in found.sentences[0].demonstrations]


def asked(engine: ScriptedEngine) -> list[str]:
    """The texts about which it was asked for spans, zero-shot."""
    return [
        request.prompt.user.removeprefix("Text: ")
        for request in engine.generated
        if request.prompt.user.startswith("Text: ") and "Spans:" not in request.prompt.user
    ]


def test_a_sentence_is_found_by_what_is_proposed_in_it_whatever_is_labelled(tmp_path: Path) -> None:
    member = lists("a", "dog", "wine", "Rome")
    assert shown(assembled(tmp_path, member, spans="labelled"), "My dog barks.") != ["A dog ran."]
    assert shown(assembled(tmp_path, member), "My dog barks.") == ["A dog ran."]


def test_the_union_of_all_members_counts(tmp_path: Path) -> None:
    made = assembled(tmp_path, lists("a", "Bonn", "dog"), lists("b", "wine"))
    assert shown(made, "We like wine.") == ["Rome has wine."]
    assert shown(made, "My dog barks.") == ["A dog ran."]


def test_a_member_is_asked_about_a_pool_once(tmp_path: Path) -> None:
    first, again, other = lists("a", "dog"), lists("a", "dog"), lists("b", "wine")
    assembled(tmp_path, first)
    assert sorted(asked(first)) == sorted(sentence.text for sentence in POOL.sentences)
    assembled(tmp_path, again, other)
    assert asked(again) == []
    assert len(asked(other)) == len(POOL.sentences)


@pytest.mark.parametrize("damage", [b"", b"[[", b'[["dog"]]', b'{"a": 1}', b"[[1], [], []]"])
def test_what_is_damaged_is_asked_anew(tmp_path: Path, damage: bytes) -> None:
    assembled(tmp_path, lists("a", "dog"))
    (file,) = (tmp_path / "index").glob("proposals-*.json")
    file.write_bytes(damage)
    for index in (tmp_path / "index").glob("*.npz"):
        index.unlink()
    again = lists("a", "dog")
    assert shown(assembled(tmp_path, again), "My dog barks.") == ["A dog ran."]
    assert "A dog ran." in asked(again)


def test_a_sentence_that_is_too_long_has_no_spans_and_nobody_is_asked(tmp_path: Path) -> None:
    long = PoolSentence("The dog " + "ran and " * 20 + "ran.", ())
    pool = Pool("p", POOL.types, (*POOL.sentences, long))
    member = lists("a", "dog")
    made = assembled(tmp_path, member, pool=pool, method={"max_sentence_chars": 100})
    assert long.text not in asked(member)
    assert shown(made, "My dog barks.") == ["A dog ran."]


def test_the_retriever_is_another_one_by_setting_and_members(tmp_path: Path) -> None:
    def retriever(*names: str, **options: Any) -> str:
        made = assembled(tmp_path, *(lists(name, "dog") for name in names), **options)
        return made.manifest("extract", "p").retriever

    assert retriever("a", "b") == retriever("b", "a")
    other = [retriever("a"), retriever("a", "b"), retriever("a", spans="labelled")]
    other.append(retriever("a", method={"constrain": True}))
    assert len(set(other)) == len(other)
    assert retriever("a", spans="labelled") == retriever("b", spans="labelled")


def test_a_cache_does_not_mix_the_two_up(tmp_path: Path) -> None:
    cache = Cache()
    for spans in ("labelled", "models", "labelled", "models"):
        found = shown(assembled(tmp_path, lists("a", "dog"), spans=spans, cache=cache), "My dog barks.")
        assert (found == ["A dog ran."]) == (spans == "models")


# --- which process has which members ---


def test_extraction_needs_the_members_where_they_propose_the_pools_spans() -> None:
    scored = {"method": {"mode": "scored"}}
    assert members_of(settings_of(["a", "b"], "models", **scored), "extract") == ("a", "b")
    assert members_of(settings_of(["a", "b"], "labelled", **scored), "extract") == ()


def test_a_process_without_the_members_says_so_when_it_is_asked(tmp_path: Path) -> None:
    made = assembled(tmp_path, lists("a"), lists("b"), stages=["validate"], method={"validation": "hard"})
    assert "models" in made.manifest("validate", "p").retriever
    with pytest.raises(ConfigError, match=r"retrieval\.pool_spans.*runs no extract"):
        made._retrievers["p"].retrieve(["My dog barks."], [["dog"]])


def test_members_apart_find_the_pool_by_their_own_spans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engines = {"a": lists("a", "dog"), "b": lists("b", "wine")}
    monkeypatch.setattr(loader, "_embedder", lambda *unused: Embedder())
    monkeypatch.setattr(loader, "load_pools", lambda unused: {"p": POOL})
    monkeypatch.setattr(loader, "load_engine", lambda name, *unused, **none: engines[name])
    settings = settings_of(["a", "b"])
    parts = {name: loader.load_members(settings, [name], cache_dir=tmp_path) for name in engines}
    assert {name: list(part.engines) for name, part in parts.items()} == {"a": ["a"], "b": ["b"]}
    assert len({part.manifest("extract", "p").retriever for part in parts.values()}) == 2
    for name, text, found in (("a", "My dog barks.", 1), ("b", "We like wine.", 0)):
        (candidates,) = parts[name].extract([Document("d", text, "p")])
        assert isinstance(candidates, DocumentCandidates)
        assert candidates.sentences[0].demonstrations == (found,)
