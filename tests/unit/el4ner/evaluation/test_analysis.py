"""Where gold entities went, what was taken for what, and who contributed."""

from hypothesis import given
from hypothesis import strategies as st

from el4ner.evaluation.analysis import OUTCOMES, confusion, losses
from el4ner.evaluation.contributions import members, proposers
from el4ner.evaluation.scoring import tally
from el4ner.evaluation.sentence_records import SentenceRecord
from tests.support.evaluation_samples import POOL, considered, record, records

ALL_WAYS = record(
    [(i * 10, i * 10 + 3, "person") for i in range(7)],
    [
        considered((0, 3), "person"),
        # 10–13 is no candidate, what crosses it is.
        considered((10, 14), "person"),
        considered((20, 23), "none", "none"),
        considered((30, 33), "place"),
        considered((40, 43), "person", "rejected"),
        considered((50, 53), "person", "overlapped"),
        considered((60, 63), "person", "unsure"),
    ],
    demonstrations=(1, 2),
)


def test_every_way_to_be_lost_is_told_apart() -> None:
    together, by_type = losses([ALL_WAYS])
    assert together.outcomes == dict.fromkeys(OUTCOMES, 1)
    assert together.gold == 7
    assert together.not_shown is None
    assert by_type == {"person": together}


def test_retrieval_has_a_share_where_the_type_was_not_shown() -> None:
    # Pool sentence 0 shows a person, 1 a place, 2 nothing; lost in classification are two.
    assert losses([ALL_WAYS], POOL)[0].not_shown == 2
    shown = record(ALL_WAYS.gold, ALL_WAYS.candidates, demonstrations=(2, 0))
    assert losses([shown], POOL)[0].not_shown == 0


def test_another_type_that_was_dropped_is_still_a_wrong_type() -> None:
    one = record([(0, 3, "person")], [considered((0, 3), "place", "rejected")])
    assert losses([one])[0].outcomes["type"] == 1


@given(st.lists(records(), max_size=6))
def test_outcomes_add_up_to_the_gold_entities_and_found_is_what_is_right(found: list[SentenceRecord]) -> None:
    together, by_type = losses(found, POOL)
    gold = sum(len(each.gold) for each in found)
    assert sum(together.outcomes.values()) == together.gold == gold
    assert sum(own.gold for own in by_type.values()) == gold
    assert together.outcomes["found"] == sum(tally(each.gold, each.predicted).correct for each in found)
    if not any(each.demonstrations for each in found):
        assert together.not_shown is None
        return
    assert together.not_shown is not None
    assert together.not_shown <= together.outcomes["none"] + together.outcomes["type"]


@given(st.lists(records(), max_size=6))
def test_the_confusion_has_every_gold_and_every_reported_entity_once(found: list[SentenceRecord]) -> None:
    made = confusion(found)
    assert made.labels[-1] == "none"
    assert sum(map(sum, made.counts[:-1])) == sum(len(each.gold) for each in found)
    assert sum(sum(row[:-1]) for row in made.counts) == sum(len(set(each.predicted)) for each in found)
    assert made.counts[-1][-1] == 0


def test_confusion_by_hand() -> None:
    made = confusion([ALL_WAYS], ["place"])
    assert made.labels == ("person", "place", "none")
    # Found one, one as a place, five not reported; the crossing span is a person that is nobody's.
    assert made.counts == ((1, 1, 5), (0, 0, 0), (1, 0, 0))


def test_proposers_by_hand() -> None:
    one = record(
        [(0, 3, "person"), (5, 9, "place"), (20, 24, "place")],
        [
            considered((0, 3), "person", by=("chunks", "lexicon")),
            considered((5, 9), "place", by=("lexicon",)),
            considered((10, 12), "none", "none", by=("chunks",)),
        ],
    )
    found = proposers([one, record()])
    assert (found.union.recall, found.union.only, found.union.per_sentence) == (2 / 3, 2, 1.5)
    assert (found.each["chunks"].recall, found.each["chunks"].only) == (1 / 3, 0)
    assert (found.each["lexicon"].recall, found.each["lexicon"].only) == (2 / 3, 1)
    assert found.each["lexicon"].per_sentence == 1.0


def test_members_by_hand() -> None:
    one = record(
        [(0, 3, "person"), (5, 9, "place"), (10, 12, "place")],
        [
            considered((0, 3), "person", votes={"a": "person", "b": "none"}),
            considered((5, 9), "place", votes={"a": "place", "b": "place"}),
            considered((10, 12), "person", votes={"a": "person", "b": "place"}),
            considered((20, 22), "none", "none", votes={"a": "none", "b": "person"}),
        ],
    )
    found = members([one])
    assert (found["a"].asked, found["a"].accuracy, found["a"].rejected) == (3, 2 / 3, 1.0)
    assert (found["b"].accuracy, found["b"].rejected) == (2 / 3, 0.0)
    assert (found["a"].alone, found["b"].alone) == (1, 0)
    assert (found["a"].overruled, found["b"].overruled) == (0, 1)


def test_without_sentences_there_is_nothing_to_say() -> None:
    assert proposers([]).each == {}
    assert members([]) == {}
    assert losses([])[0].gold == 0
