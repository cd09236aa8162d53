"""The book of entities says the same whatever the order in which it learns, and stays within its limits."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from el4ner.canonical.decisions import EntityDecision
from el4ner.canonical.entity_book import EntityBook
from el4ner.canonical.entity_settings import EntitySettings
from el4ner.canonical.entity_views import EntityView, MergedName, WindowTrend
from el4ner.canonical.in_document import full_names
from el4ner.canonical.name_book import NamedDocument
from el4ner.canonical.name_counts import SealedCounts
from el4ner.canonical.names import entity_id

HOUR = 3_600_000
DAY = 24 * HOUR
START = 20_000 * DAY
SETTINGS = EntitySettings()
MERKEL, SHORT, OTHER = (entity_id("person", name) for name in ("angela merkel", "merkel", "una merkel"))

Published = dict[str, EntityView | MergedName]


def document(key: str, *surfaces: str, version: int = 0, time: int = START, kind: str = "person") -> NamedDocument:
    mentions = [(kind, surface) for surface in surfaces]
    counts: dict[tuple[str, str], Counter[str]] = {}
    for (type_, surface), name in zip(mentions, full_names(mentions), strict=True):
        counts.setdefault((type_, name), Counter())[surface] += 1
    names = tuple((type_, name, dict(counted)) for (type_, name), counted in sorted(counts.items()))
    return NamedDocument(key, version, time, names)


def merge(name: str, into: str, *, at: int = 1, number: str = "m") -> EntityDecision:
    return EntityDecision(number, at, "merge", "person", name, into)


def split(name: str, *, at: int = 1, number: str = "s") -> EntityDecision:
    return EntityDecision(number, at, "split", "person", name)


def learn(items: Iterable[NamedDocument | EntityDecision], settings: EntitySettings = SETTINGS) -> EntityBook:
    book = EntityBook(settings)
    for item in items:
        if isinstance(item, NamedDocument):
            book.put(item)
        else:
            book.decide(item)
    return book


def published(book: EntityBook, before: Mapping[str, Any] | None = None) -> Published:
    """What lies on a compacted topic when its changes were written, after ``before``."""
    topic: dict[str, Any] = dict(before or {})
    topic.update(book.take_changes().entities)
    return {key: value for key, value in topic.items() if value is not None}


def entity(topic: Published, key: str) -> EntityView:
    view = topic[key]
    assert isinstance(view, EntityView)
    return view


def mentions(view: EntityView) -> int:
    return sum(window.mentions for window in view.windows)


# --- what is counted ---


def test_an_entity_has_its_spellings_times_and_counts_by_window() -> None:
    book = learn(
        [
            document("a", "Angela Merkel", "Merkel", "Merkel", time=START + 1),
            document("b", "ANGELA MERKEL", "Angela Merkel's", time=START + DAY),
            document("c", "Angela Merkel", time=START + 2),
        ]
    )
    view = entity(published(book), MERKEL)
    assert (view.type, view.name) == ("person", "Angela Merkel")
    assert view.aliases == ["Angela Merkel", "Merkel", "ANGELA MERKEL", "Angela Merkel's"]
    assert (view.first_ms, view.last_ms) == (START + 1, START + DAY)
    assert [(each.mentions, each.documents) for each in view.windows] == [(4, 2), (2, 1)]


def test_types_are_never_joined() -> None:
    topic = published(learn([document("a", "Paris Hilton", "Paris"), document("b", "Paris", kind="location")]))
    assert {(view.type, view.name) for view in topic.values()} == {("person", "Paris Hilton"), ("location", "Paris")}


def test_a_revision_and_a_deletion_take_back_what_was_counted() -> None:
    book = learn([document("a", "Angela Merkel", time=START), document("b", "Angela Merkel", time=START + 5)])
    topic = published(book)
    book.put(document("a", "Una Merkel", version=1, time=START))
    topic = published(book, topic)
    assert (entity(topic, MERKEL).first_ms, mentions(entity(topic, MERKEL))) == (START + 5, 1)
    book.put(document("b", version=1, time=START + 9))
    topic = published(book, topic)
    assert topic.keys() == {OTHER}
    assert book.put(document("a", "Angela Merkel", version=0)) == "known"


# --- what is joined ---


def test_a_short_form_alone_joins_the_one_entity_that_documents_call_so() -> None:
    book = learn([document("a", "Merkel")])
    topic = published(book)
    assert entity(topic, SHORT).name == "Merkel"
    book.put(document("b", "Angela Merkel", "Merkel", "Merkel"))
    topic = published(book, topic)
    assert topic[SHORT] == MergedName(SHORT, "person", "merkel", MERKEL, decided=False)
    assert mentions(entity(topic, MERKEL)) == 4
    # A second one has that short form: nobody knows which of them is meant.
    book.put(document("c", "Una Merkel", "Merkel"))
    topic = published(book, topic)
    assert [mentions(entity(topic, key)) for key in (SHORT, MERKEL, OTHER)] == [1, 3, 2]
    book.put(document("c", version=1))
    assert published(book, topic)[SHORT] == MergedName(SHORT, "person", "merkel", MERKEL, decided=False)


def test_one_document_does_not_rename_what_all_others_write_about() -> None:
    lone = [document(str(number), "Michael") for number in range(1_000)]
    book = learn([*lone, document("both", "Michael Jordan", "Michael")])
    topic = published(book)
    counts = {view.name: mentions(view) for view in topic.values() if isinstance(view, EntityView)}
    assert counts == {"Michael": 1_000, "Michael Jordan": 2}
    # As soon as the long one is meant more often than not, it is that one; and no more when that is over.
    short, jordan = entity_id("person", "michael"), entity_id("person", "michael jordan")
    for number in range(500):
        book.put(document(str(number), "Michael Jordan", "Michael", version=1))
    topic = published(book, topic)
    assert topic[short] == MergedName(short, "person", "michael", jordan, decided=False)
    book.put(document("both", version=1))
    assert mentions(entity(published(book, topic), short)) == 500


def test_short_forms_of_other_documents_may_stay_apart() -> None:
    items = [document("a", "Merkel"), document("b", "Angela Merkel", "Merkel", "Merkel")]
    topic = published(learn(items, EntitySettings(short_forms="document")))
    assert [mentions(entity(topic, key)) for key in (SHORT, MERKEL)] == [1, 3]


def test_people_merge_and_split_and_the_latest_word_counts() -> None:
    book = learn([document("a", "Angela Merkel"), document("b", "Una Merkel")])
    topic = published(book)
    book.decide(merge("una merkel", "angela merkel", at=5))
    topic = published(book, topic)
    assert topic[OTHER] == MergedName(OTHER, "person", "una merkel", MERKEL, decided=True)
    assert entity(topic, MERKEL).names == [(MERKEL, "angela merkel"), (OTHER, "una merkel")]
    book.decide(split("una merkel", at=4, number="older"))
    assert published(book, topic) == topic
    book.decide(split("una merkel", at=6, number="newer"))
    topic = published(book, topic)
    assert [mentions(entity(topic, key)) for key in (MERKEL, OTHER)] == [1, 1]


def test_a_split_holds_against_a_short_form_too() -> None:
    book = learn([document("a", "Merkel"), document("b", "Angela Merkel", "Merkel", "Merkel"), split("merkel")])
    assert mentions(entity(published(book), SHORT)) == 1


def test_two_merges_in_a_ring_end_where_the_later_one_points() -> None:
    items = [document("a", "Angela Merkel"), document("b", "Una Merkel")]
    decided = [
        merge("una merkel", "angela merkel", at=1),
        merge("angela merkel", "una merkel", at=2, number="n"),
    ]
    topic = published(learn([*items, *decided]))
    assert topic[MERKEL] == MergedName(MERKEL, "person", "angela merkel", OTHER, decided=True)
    assert mentions(entity(topic, OTHER)) == 2


def test_what_is_merged_into_something_that_was_merged_moves_with_it_and_back() -> None:
    third = entity_id("person", "a merkel")
    book = learn(
        [
            *(document(key, name) for key, name in (("a", "Angela Merkel"), ("b", "Una Merkel"), ("c", "A Merkel"))),
            merge("a merkel", "una merkel", number="1"),
        ]
    )
    topic = published(book)
    book.decide(merge("una merkel", "angela merkel", number="2"))
    topic = published(book, topic)
    assert mentions(entity(topic, MERKEL)) == 3
    book.decide(split("una merkel", at=9))
    topic = published(book, topic)
    assert topic[third] == MergedName(third, "person", "a merkel", OTHER, decided=True)
    assert [mentions(entity(topic, key)) for key in (MERKEL, OTHER)] == [1, 2]


def test_a_merge_of_a_name_with_itself_or_into_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="into another name"):
        merge("merkel", "merkel")
    with pytest.raises(ValueError, match="a split into none"):
        EntityDecision("x", 0, "merge", "person", "merkel")


# --- the order makes no difference ---

NAMES = st.lists(
    st.sampled_from(["Angela Merkel", "Merkel", "Una Merkel", "MERKEL", "Angela", "Max Planck", "Planck"]), max_size=4
)
KINDS = st.sampled_from(["person", "location"])
VERSIONS = st.lists(st.tuples(NAMES, KINDS, st.integers(0, 4)), min_size=1, max_size=3)
DECIDED = st.tuples(
    st.sampled_from(["angela merkel", "merkel", "una merkel", "max planck", "planck", "unheard of"]),
    st.sampled_from(["angela merkel", "merkel", "una merkel", "planck", None]),
    st.integers(0, 3),
)


@st.composite
def worlds(draw: st.DrawFn) -> list[NamedDocument | EntityDecision]:
    """Versions of documents, some of which delete them, and decisions."""
    items: list[NamedDocument | EntityDecision] = [
        document(f"d{number}", *names, version=version, time=START + window * DAY + number, kind=kind)
        for number, versions in enumerate(draw(st.lists(VERSIONS, max_size=5)))
        for version, (names, kind, window) in enumerate(versions)
    ]
    for number, (name, into, at) in enumerate(draw(st.lists(DECIDED, max_size=5))):
        if into is None:
            items.append(split(name, at=at, number=str(number)))
        elif into != name:
            items.append(merge(name, into, at=at, number=str(number)))
    return items


def trends(book: EntityBook) -> dict[tuple[int, str], WindowTrend]:
    book.take_changes()
    return {(window, kind): trend for window, kind, trend in book.take_trends() if trend is not None}


@given(worlds(), st.data())
def test_the_state_is_the_same_whatever_the_order(items: Sequence[NamedDocument | EntityDecision], data: Any) -> None:
    expected = published(learn(items))
    order = data.draw(st.permutations([*items, *items[: len(items) // 2]]))
    book = EntityBook(SETTINGS)
    topic: Published = {}
    shown: dict[tuple[int, str], WindowTrend | None] = {}
    for item in order:
        # Changes are published after each, as a stream does; some things come twice.
        book.put(item) if isinstance(item, NamedDocument) else book.decide(item)
        topic = published(book, topic)
        shown.update({(window, kind): trend for window, kind, trend in book.take_trends()})
    assert topic == expected
    assert {key: trend for key, trend in shown.items() if trend is not None} == trends(learn(items))


@given(worlds())
def test_counts_are_those_of_the_latest_versions(items: Sequence[NamedDocument | EntityDecision]) -> None:
    latest = {item.key: item for item in items if isinstance(item, NamedDocument)}
    counted: Counter[str] = Counter()
    for version in latest.values():
        for kind, _, surfaces in version.names:
            counted[kind] += sum(surfaces.values())
    seen: Counter[str] = Counter()
    for view in published(learn(items)).values():
        if isinstance(view, EntityView):
            seen[view.type] += mentions(view)
    assert seen == counted


@given(worlds(), st.data())
def test_a_book_that_is_rebuilt_goes_on_as_if_nothing_had_been(
    items: Sequence[NamedDocument | EntityDecision], data: Any
) -> None:
    settings = EntitySettings(max_documents=data.draw(st.sampled_from([2, 100])))
    cut = data.draw(st.integers(0, len(items)))
    whole, book = EntityBook(settings), EntityBook(settings)
    documents: dict[str, NamedDocument | None] = {}
    sealed: dict[tuple[str, str, int], SealedCounts | None] = {}
    decisions: list[EntityDecision] = []
    latest: int | None = None
    topic: Published = {}
    for number, item in enumerate(items):
        if number == cut:
            book = EntityBook(settings)
            book.restore(
                latest_window=latest,
                documents=[each for each in documents.values() if each is not None],
                sealed=[(key, each) for key, each in sealed.items() if each is not None],
                decisions=decisions,
            )
        for each in (whole, book):
            each.put(item) if isinstance(item, NamedDocument) else each.decide(item)
        changes = book.take_changes()
        topic = {key: value for key, value in {**topic, **changes.entities}.items() if value is not None}
        documents |= changes.names.documents
        sealed |= changes.names.sealed
        decisions += changes.decisions
        latest = changes.names.latest_window or latest
    assert topic == published(whole)


# --- limits ---


def test_windows_that_are_over_are_forgotten_whatever_came_first() -> None:
    settings = EntitySettings(windows=2)
    items = [document(str(day), "Angela Merkel", time=START + day * DAY) for day in range(5)]
    old = document("old", "Una Merkel", time=START)
    for order in ([old, *items], [*items, old], [*items[::-1], old]):
        book = learn(order, settings)
        topic = published(book)
        assert topic.keys() == {MERKEL}
        assert [each.mentions for each in entity(topic, MERKEL).windows] == [1, 1]
        assert entity(topic, MERKEL).first_ms == START + 3 * DAY
        assert book.names.documents == 2
    assert book.put(document("late", "Una Merkel", time=START)) == "late"


def test_of_too_many_documents_the_oldest_go_on_to_count_and_are_not_taken_back() -> None:
    settings = EntitySettings(max_documents=3)
    items = [document(str(number), "Angela Merkel", time=START + number) for number in range(6)]
    for order in (items, items[::-1]):
        book = learn(order, settings)
        topic = published(book)
        assert (mentions(entity(topic, MERKEL)), entity(topic, MERKEL).first_ms) == (6, START)
        assert (book.names.documents, book.names.sealed) == (3, 3)
        book.put(document("5", version=1, time=START + 5))
        assert mentions(entity(published(book, topic), MERKEL)) == 5


def test_of_too_many_names_those_seen_least_recently_go() -> None:
    book = learn(
        [document(str(number), f"Name {chr(97 + number)}x", time=START + number) for number in range(26)],
        EntitySettings(max_entities=10),
    )
    topic = published(book)
    assert len(topic) <= 10
    assert book.names.evicted == 26 - len(topic)
    assert entity_id("person", "name zx") in topic
    # What a forgotten one's document says later is no reason to stumble.
    book.put(document("0", version=1, time=START))
    assert published(book, topic) == topic


def test_a_book_that_is_rebuilt_has_forgotten_the_same_names() -> None:
    settings = EntitySettings(max_entities=10)
    book = EntityBook(settings)
    topic: Published = {}
    documents: dict[str, NamedDocument | None] = {}
    latest: int | None = None
    for number in range(26):
        letter = chr(97 + number)
        book.put(document(str(number), f"Name {letter}x", f"Also {letter}y", time=START + number))
        changes = book.take_changes()
        topic = {key: value for key, value in {**topic, **changes.entities}.items() if value is not None}
        documents |= changes.names.documents
        latest = changes.names.latest_window or latest
    kept = [each for each in documents.values() if each is not None]
    again = EntityBook(settings)
    again.restore(latest_window=latest, documents=kept, sealed=[], decisions=[])
    assert again.take_changes().entities == {}
    assert {key: view for key in again.names.names if (view := again.entity(key)) is not None} == topic
    # With a smaller limit it forgets more, and says so.
    again = EntityBook(EntitySettings(max_entities=4))
    again.restore(latest_window=latest, documents=kept, sealed=[], decisions=[])
    topic = published(again, topic)
    assert topic.keys() == again.names.names.keys()
    assert 0 < len(topic) <= 4


def test_spellings_of_a_name_are_bounded_and_its_mentions_are_exact() -> None:
    spellings = [
        "".join(c.upper() if number >> place & 1 else c for place, c in enumerate("merkelx")) for number in range(100)
    ]
    book = learn([document(str(number), spelling) for number, spelling in enumerate(spellings)])
    view = entity(published(book), entity_id("person", "merkelx"))
    assert (mentions(view), len(view.aliases)) == (100, 50)
    for number in range(100):
        book.put(document(str(number), version=1))
    assert published(book, {view.id: view}) == {}


class CountedTime(int):
    """A time that counts how often it is compared."""

    compared = 0

    def __lt__(self, other: int) -> bool:
        CountedTime.compared += 1
        return int(self) < int(other)

    def __gt__(self, other: int) -> bool:
        CountedTime.compared += 1
        return int(self) > int(other)


def test_times_are_looked_at_once_however_many_documents_are_taken_back() -> None:
    count = 500
    book = learn(document(str(number), "Angela Merkel", time=CountedTime(START + number)) for number in range(count))
    book.take_changes()
    CountedTime.compared = 0
    for number in range(count // 2):
        book.put(document(str(number), version=1, time=START + number))
    view = book.take_changes().entities[MERKEL]
    assert isinstance(view, EntityView)
    assert (view.first_ms, view.last_ms) == (START + count // 2, START + count - 1)
    # Each of them for each that is taken back would be a hundred thousand.
    assert CountedTime.compared < 20 * count


def test_memory_does_not_grow_with_revisions() -> None:
    book = EntityBook(SETTINGS)
    tracemalloc.start()
    try:
        for version in range(20_000):
            book.put(NamedDocument("a", version, START + version))
        book.take_changes()
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert grown < 20_000 * 20


def test_trends_name_the_most_frequent_of_a_window_with_what_was_before() -> None:
    book = learn(
        [
            document("a", "Angela Merkel", "Merkel", time=START),
            document("b", "Una Merkel", time=START + DAY),
            document("c", "Angela Merkel", "Angela Merkel", "Angela Merkel", time=START + DAY),
        ],
        EntitySettings(trend_entities=1),
    )
    book.take_changes()
    now = START // DAY + 1
    (before, after) = (trend for _, _, trend in book.take_trends() if trend is not None)
    assert (before.window, after.window, after.entities) == (now - 1, now, 2)
    (top,) = after.top
    assert (top.id, top.name, top.mentions, top.documents, top.before) == (MERKEL, "Angela Merkel", 3, 1, 2)
    assert book.take_trends() == []
