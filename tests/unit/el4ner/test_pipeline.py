"""The pipeline over documents: pools, bad documents beside good ones, token shares; and the tagger on top of it."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from el4ner.assemble import assemble
from el4ner.config import Settings, load_settings
from el4ner.engines.instant import InstantEngine
from el4ner.errors import DocumentError
from el4ner.pipeline import Pipeline
from el4ner.pools import load_pool
from el4ner.retrieval import make_retriever
from el4ner.stages.document_stage import shared
from el4ner.tagger import Tagger
from el4ner.types import Document, Usage
from tests.support.doubles import ScriptedEngine


def pipeline(*, method: Mapping[str, Any] | None = None, pools: tuple[str, ...] = ("news", "logs")) -> Pipeline:
    settings = load_settings(
        Settings,
        environ={},
        overrides={
            "ensemble": {"preset": "instant"},
            "method": dict(method or {}),
            "pools": {"default": pools[0], "paths": {name: f"shipped:{name}" for name in pools}},
        },
    )
    loaded = {name: load_pool(f"shipped:{name}", name=name) for name in pools}
    return Pipeline(
        settings,
        {name: InstantEngine(name) for name in settings.ensemble.members},
        loaded,
        {name: make_retriever("random", pool, k=3) for name, pool in loaded.items()},
    )


def run(made: Pipeline, *documents: Document) -> list[Any]:
    return list(Tagger(made).tag_or_error(documents))


def test_every_entity_is_where_it_says_it_is_and_of_a_type_of_its_pool() -> None:
    made = pipeline()
    news = Document("n", "👍 Zoë Okafor met the Bank of England. It rained in Łódź on Tuesday.", "news")
    logs = Document(
        "l", "10:00:01 db-1 sshd[77]: Failed for root from 192.0.2.7\n10:00:02 db-1 cron: /etc/a.conf", "logs"
    )
    for document, result in zip((news, logs), run(made, news, logs), strict=True):
        assert result.id == document.id
        assert result.pool == document.pool
        assert result.entities
        for entity in result.entities:
            assert document.text[entity.start : entity.end] == entity.text
            assert entity.type in made.pools[document.pool or ""].types
            assert 0 <= entity.confidence <= 1
            assert set(entity.votes) == {"instant-a", "instant-b"}
            assert entity.proposed_by


def test_a_document_without_a_pool_takes_the_default_one() -> None:
    (result,) = run(pipeline(pools=("logs", "news")), Document("d", "x"))
    assert result.pool == "logs"


@pytest.mark.parametrize("text", ["", "   \n ", "…"])
def test_a_text_without_words_has_no_entities(text: str) -> None:
    (result,) = run(pipeline(), Document("d", text))
    assert result.entities == ()


def test_bad_documents_are_errors_in_their_places_and_cost_the_others_nothing() -> None:
    made = pipeline(method={"max_document_chars": 50})
    results = run(
        made,
        Document("1", "Ada spoke."),
        Document("2", "x" * 51),
        Document("3", "Bob spoke.", "law"),
        Document("4", "Eve."),
    )
    assert [getattr(result, "code", "fine") for result in results] == [
        "fine", "document-too-long", "unknown-pool", "fine",
    ]  # fmt: skip
    assert "there are: logs, news" in str(results[2])
    assert [result.id for result in (results[0], results[3])] == ["1", "4"]


def test_a_result_of_another_pool_is_refused() -> None:
    one, other = pipeline(pools=("news",)), pipeline(pools=("logs",))
    (found,) = one.extract([Document("d", "Ada spoke.")])
    assert not isinstance(found, DocumentError)
    other.pools["news"] = other.pools["logs"]
    (refused,) = other.classify([found])
    assert isinstance(refused, DocumentError)
    assert refused.code in ("pool-mismatch", "unknown-pool")


def test_the_result_does_not_depend_on_the_batch() -> None:
    documents = [Document(f"{i}", f"Ada Lovelace met Bob Smith {i} in London.", "news") for i in range(7)]
    made = pipeline()
    assert list(Tagger(made).tag(documents, batch_size=7)) == list(Tagger(made).tag(documents, batch_size=2))


def test_hard_validation_drops_what_does_not_hold_and_soft_lowers_its_confidence() -> None:
    made = pipeline(method={"validation": "soft"})
    made.engines = {
        "instant-b": ScriptedEngine("instant-b", prefer=lambda tail, options: options[-1 if "Yes" in tail else 0])
    }
    typed = made.classify(made.extract([Document("d", "Ada Lovelace left.")]))  # type: ignore[arg-type]
    (judged,) = made.validate(typed)  # type: ignore[arg-type]
    assert not isinstance(judged, DocumentError)
    soft, hard, off = (assemble(judged, validation=kind) for kind in ("soft", "hard", "off"))
    assert hard.entities == ()
    assert soft.entities
    assert all(a.confidence < b.confidence for a, b in zip(soft.entities, off.entities, strict=True))
    assert all(entity.verdict is not None and not entity.verdict.holds for entity in soft.entities)


COUNTS = st.integers(0, 10**6)


@given(st.builds(Usage, COUNTS, COUNTS, COUNTS), st.lists(st.integers(0, 20), min_size=1, max_size=8))
def test_shares_of_the_tokens_add_up(usage: Usage, sizes: list[int]) -> None:
    shares = shared(usage, sizes)
    assert len(shares) == len(sizes)
    assert sum(shares, Usage()) == (usage if sum(sizes) else Usage())
