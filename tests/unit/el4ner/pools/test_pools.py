"""Pools and their readers: errors name file and line; what is shipped is sound."""

import itertools
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from el4ner.errors import PoolError
from el4ner.pools import Pool, PoolSentence, load_pool, read_conll, read_jsonl, shipped_pools
from el4ner.pools.readers import join_tokens, tag_spans
from el4ner.types import Span


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_json_lines_are_read_with_code_point_offsets(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.jsonl",
        '{"text": "👍 Zoë spoke", "spans": [{"start": 2, "end": 5, "type": "person", "text": "Zoë"}]}\n'
        '\n{"text": "No one."}\n',
    )
    first, second = read_jsonl(path)
    assert first.spans == ((Span(2, 5, "Zoë"), "person"),)
    assert second.spans == ()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "is not JSON"),
        ("[]", 'needs an object with a "text"'),
        ('{"text": " "}', 'needs an object with a "text"'),
        ('{"text": "Ada", "spans": [{"start": 0, "end": 9, "type": "person"}]}', "not inside the text"),
        ('{"text": "Ada", "spans": [{"start": 0, "end": 3, "type": "person", "text": "Bob"}]}', "'Ada', not 'Bob'"),
        ('{"text": "Ada", "spans": [{"start": "0", "end": 3, "type": "person"}]}', "needs whole numbers"),
    ],
)
def test_a_wrong_json_line_is_named_by_file_and_line(tmp_path: Path, line: str, message: str) -> None:
    path = write(tmp_path / "a.jsonl", f'{{"text": "fine"}}\n{line}\n')
    with pytest.raises(PoolError, match=message) as raised:
        list(read_jsonl(path))
    assert f"{path}:2:" in str(raised.value)


def test_bio_and_bioes_give_the_same_spans(tmp_path: Path) -> None:
    bio = write(tmp_path / "a.conll", "Ada\tB-person\nLovelace\tI-person\nmet\tO\nBob\tB-person\n.\tO\n")
    bioes = write(tmp_path / "b.conll", "Ada\tB-person\nLovelace\tE-person\nmet\tO\nBob\tS-person\n.\tO\n")
    (one,), (other,) = read_conll(bio), read_conll(bioes)
    assert one == other
    assert one.text == "Ada Lovelace met Bob."
    assert [span.text for span, _ in one.spans] == ["Ada Lovelace", "Bob"]


@pytest.mark.parametrize(
    ("line", "message"), [("Ada", "needs a token and a tag"), ("Ada\tperson", "no BIO or BIOES tag")]
)
def test_a_wrong_conll_line_is_named_by_file_and_line(tmp_path: Path, line: str, message: str) -> None:
    path = write(tmp_path / "a.conll", f"Ok\tO\n{line}\n")
    with pytest.raises(PoolError, match=message) as raised:
        list(read_conll(path))
    assert f"{path}:2:" in str(raised.value)


def test_bytes_that_are_not_utf8_are_named_by_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "a.conll"
    path.write_bytes(b"Ok\tO\n\xff\tO\n")
    with pytest.raises(PoolError, match=r"a\.conll:2: is not UTF-8"):
        list(read_conll(path))


LABELS = st.lists(st.sampled_from(["O", "B-a", "I-a", "B-b", "I-b", "E-a", "S-b"]), max_size=12)


@given(LABELS)
def test_any_sequence_of_tags_gives_spans_in_order_without_overlap(tags: list[str]) -> None:
    spans = tag_spans(tags)
    assert all(first <= last for first, last, _ in spans)
    assert all(one[1] < other[0] for one, other in itertools.pairwise(spans))
    inside = {index for first, last, _ in spans for index in range(first, last + 1)}
    assert inside == {index for index, tag in enumerate(tags) if tag != "O"}


@given(st.lists(st.text(alphabet="ab.,(')#", min_size=1, max_size=4), max_size=8))
def test_joined_tokens_keep_their_offsets(tokens: list[str]) -> None:
    text, offsets = join_tokens(tokens)
    assert [text[start:end] for start, end in offsets] == tokens


def sentence(text: str = "Ada spoke", *spans: tuple[int, int, str]) -> PoolSentence:
    return PoolSentence(text, tuple((Span(s, e, text[s:e]), label) for s, e, label in spans), "a.jsonl:7")


def test_a_pool_refuses_a_type_that_it_does_not_declare() -> None:
    with pytest.raises(PoolError, match=r"a\.jsonl:7: type 'place' is not declared; there are: person"):
        Pool("p", {"person": "a human"}, (sentence("Ada spoke", (0, 3, "place")),))


def test_a_pool_refuses_overlapping_spans_and_the_reserved_type() -> None:
    with pytest.raises(PoolError, match="overlaps"):
        Pool("p", {"person": "a human"}, (sentence("Ada spoke", (0, 3, "person"), (2, 5, "person")),))
    with pytest.raises(PoolError, match="cannot be an entity type"):
        Pool("p", {"none": "nothing"}, (sentence(),))


def test_the_fingerprint_follows_what_a_prompt_can_show_and_nothing_else() -> None:
    pool = Pool("p", {"person": "a human"}, (sentence("Ada spoke", (0, 3, "person")),))
    renamed = Pool("q", {"person": "a human"}, (PoolSentence(pool.sentences[0].text, pool.sentences[0].spans, "b:1"),))
    described = Pool("p", {"person": "a human being"}, pool.sentences)
    assert pool.fingerprint == renamed.fingerprint
    assert pool.fingerprint != described.fingerprint


def test_a_folder_with_a_misspelt_setting_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "pool.toml", 'nmae = "x"\n[types]\nperson = "a human"\n')
    with pytest.raises(PoolError, match="there is no setting 'nmae'"):
        load_pool(tmp_path)


def test_an_unknown_pool_is_named_with_the_shipped_ones() -> None:
    with pytest.raises(PoolError, match=r"no such pool; .*logs, news"):
        load_pool("nwes")


def test_the_shipped_pools_are_news_and_logs() -> None:
    assert shipped_pools() == ["logs", "news"]


@pytest.mark.parametrize(("name", "fewest"), [("news", 160), ("logs", 100)])
def test_a_shipped_pool_is_large_balanced_and_without_duplicates(name: str, fewest: int) -> None:
    pool = load_pool(f"shipped:{name}")
    assert len(pool.sentences) >= fewest
    assert len({" ".join(s.text.lower().split()) for s in pool.sentences}) == len(pool.sentences)
    mentions = [label for s in pool.sentences for _, label in s.spans]
    counts = {label: mentions.count(label) for label in pool.types}
    assert min(counts.values()) >= 30  # as many as neighbours vote
    assert max(counts.values()) <= 0.35 * len(mentions)
    free = sum(not s.spans for s in pool.sentences) / len(pool.sentences)
    assert 0.1 <= free <= 0.25
    assert pool.text_kind == ("prose" if name == "news" else "log")


HEADER = re.compile(
    r"(?:<\d+>)?[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d (?P<host>[\w.-]+) (?P<process>[\w./-]+)(?:\(\w+\))?(?:\[\d+\])?:"
)
MUST_BE_LABELLED = {
    "mac-address": re.compile(r"(?<![\w:-])[\da-fA-F]{2}(?:[:-][\da-fA-F]{2}){5}(?![\w:-])"),
    "uuid": re.compile(r"(?<![\w-])[\da-fA-F]{8}(?:-[\da-fA-F]{4}){3}-[\da-fA-F]{12}(?![\w-])"),
    "error-code": re.compile(r"failed \((\d+): "),
}


def test_the_pool_of_logs_labels_all_that_has_a_plain_form() -> None:
    """What is not labelled shows the members that such a thing is none."""
    for sentence in load_pool("shipped:logs").sentences:
        labelled = {(span.start, span.end): label for span, label in sentence.spans}
        for label, form in MUST_BE_LABELLED.items():
            for match in form.finditer(sentence.text):
                assert labelled.get(match.span(match.lastindex or 0)) == label, sentence.text
        if header := HEADER.match(sentence.text):
            assert labelled.get(header.span("host")) == "host", sentence.text
            assert labelled.get(header.span("process")) == "process", sentence.text


def test_the_pool_of_logs_has_hosts_of_all_kinds_of_names_in_headers() -> None:
    """Hosts that are plain words have no type where nearly all that are shown have a hyphen or a digit."""
    headers = [match for s in load_pool("shipped:logs").sentences if (match := HEADER.match(s.text))]
    plain = [header["host"] for header in headers if header["host"].isalpha()]
    assert len(headers) >= 0.25 * len(load_pool("shipped:logs").sentences)
    assert 0.25 <= len(plain) / len(headers) <= 0.75
    assert len(set(plain)) >= 10
