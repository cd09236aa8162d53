"""What is one token, an address or a path or a hash, is entered by no proposer, unless the pool labels its parts."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from el4ner.config import MethodSettings, Settings, load_settings
from el4ner.engines.instant import InstantEngine
from el4ner.pipeline import Pipeline
from el4ner.pools import Pool, load_pool
from el4ner.pools.pool import PoolSentence
from el4ner.prompts import PromptSet
from el4ner.retrieval import make_retriever
from el4ner.stages.context import StageContext
from el4ner.stages.extract import SentenceInput, extract, pool_proposals
from el4ner.text.atoms import AtomGate, atoms, divisible
from el4ner.text.chunks import chunks
from el4ner.text.segment import TextKind, segment
from el4ner.types import Document, DocumentCandidates, Sentence, Span
from tests.support.doubles import ScriptedEngine

WHOLE = [
    ("https://example.org/Berlin/London?q=Paris", "url"),
    ("https://en.wikipedia.org/wiki/Paris_(Texas)", "url"),
    ("s3://bucket/Paris/x.csv", "url"),
    ("jdbc:mysql://Paris:3306/London", "url"),
    ("mailto:Ola@example.org?subject=Paris", "url"),
    ("data:image/png;base64,iVBORw0KGgoAAAANSUhEUg/Paris/London+AAAF", "url"),
    ("urn:isbn:Paris:London", "url"),
    ("magnet:?xt=urn:btih:Paris&dn=London", "url"),
    ("sip:Paris@example.org;transport=tcp", "url"),
    ("doi:10.1000/Paris.London", "url"),
    ("arn:aws:iam::123456789012:user/Paris", "url"),
    ("www.paris.fr/London", "bare-url"),
    ("example.org/Berlin", "bare-url"),
    ("ola.renn@paris.example.org", "email"),
    ("Paris@London", "email"),
    ("git@paris.example.org:Paris/London.git", "email"),
    ("ola@Paris:/home/London", "email"),
    ("ola@Paris:~/London/x", "email"),
    (r"C:\Users\Paris\file", "path"),
    (r"C:\Program Files\Paris\x.txt", "path"),
    (r"\\London\share\Paris", "path"),
    (r"%APPDATA%\Paris\x", "path"),
    (r"HKLM\Software\Paris", "path"),
    ("C:/Users/Paris", "path"),
    ("/home/Paris/London.txt", "path"),
    ("~/Paris/x", "path"),
    ("$HOME/Paris/x", "path"),
    ("src/Paris/main.py", "path"),
    ("paris.example.org", "domain"),
    ("@Paris_SG", "handle"),
    ("@Paris", "handle"),
    ("eyJhbGciOiJI.eyJzdWIiOiIx.Paris_SflKxw", "hash"),
    ("dGhpcyBpcyBhIHRlc3Q+Paris/IDEyMzQ1Njc4OTA=", "hash"),
    ("sha256:9f86d081884c7d659a2feaa0c55ad015", "hash"),
    ("3f2a91c0-1234-4abc-8def-0123456789ab", "id"),
    ("0c:9d:92:1f:77:a4", "id"),
    ("2001:db8::cafe", "id"),
]
NONE = [
    "Berlin/Paris/London", "and/or", "km/h", "24/7", "AT&T", "O'Neil", "1/2/2026", "he/she", "N/A", "TCP/IP", "U.S.",
    "COVID-19/SARS-CoV-2/MERS-CoV-2012", "London.It", "e.g.", "/10.2.3.4:9092", "#London", "Jean-Luc", "Node.js", "A/B",
    "C:", "3.5",
]  # fmt: skip


@pytest.mark.parametrize(("surface", "kind"), WHOLE)
@pytest.mark.parametrize("frame", ["{}", "See {}.", "({}), he said", "\u201c{}\u201d", "Paris {} London"])
def test_an_atom_is_told_from_what_is_around_it(surface: str, kind: str, frame: str) -> None:
    text = frame.format(surface)
    assert [(text[atom.start : atom.end], atom.kind) for atom in atoms(text)] == [(surface, kind)]


@pytest.mark.parametrize("surface", NONE)
def test_names_with_signs_inside_are_no_atoms(surface: str) -> None:
    assert atoms(f"He saw {surface} there") == []


def test_an_address_ends_where_a_text_without_spaces_goes_on() -> None:
    text = "\u8bbf\u95eehttps://example.org/a\uff0c\u4f26\u6566"
    assert [text[atom.start : atom.end] for atom in atoms(text)] == ["https://example.org/a"]


@pytest.mark.parametrize("escape", [r"\n", r"\r\n", r"\n\tat", r"\\n"])
@pytest.mark.parametrize("path", ["/srv/x.pdf", r"/srv/y\z/x.pdf", "C:/srv/x.pdf", "git@example.org:team/x.git"])
def test_a_path_ends_where_a_line_end_is_written_out(path: str, escape: str) -> None:
    """As in a message inside of JSON; a backslash in front of something else may be a part of the path."""
    text = f'{{"error": "cannot read {path}{escape} com.example.Job: ~/a/b"}}'
    assert [text[atom.start : atom.end] for atom in atoms(text)] == [path, "~/a/b"]


@given(st.text(st.sampled_from("aZ9.:/\\@-_%+=?#()[] \n\u00e9~$")))
def test_atoms_are_in_order_and_none_overlaps_another(text: str) -> None:
    end = 0
    for atom in atoms(text):
        assert end <= atom.start < atom.end <= len(text)
        end = atom.end


@given(st.text(st.sampled_from("aZ9.:/\\@- ")), st.data())
def test_a_gate_refuses_what_begins_or_ends_inside(text: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    gate = AtomGate(text)
    for atom in atoms(text):
        assert gate.admits(Span(atom.start, atom.end, text[atom.start : atom.end]))
        if (
            atom.start < start
            and end < atom.end
            and text[atom.start : start].isalnum()
            and text[end : atom.end].isalnum()
        ):
            assert not gate.admits(Span(start, end, text[start:end]))
    assert AtomGate(text, frozenset(atom.kind for atom in atoms(text))).admits(Span(start, end, text[start:end]))


@pytest.mark.parametrize(
    "unit", ["a", "a.", "a/", "a@", ":", "a:", "\\", "C:\\a ", "www.", "http:", "(", ")", "9aB", "%", "!/", "!/a\\x"]
)
def test_many_signs_are_read_in_one_pass(unit: str) -> None:
    """By the square of their number it would take minutes."""
    text = unit * (200_000 // len(unit))
    for before in ("http://x/", ""):
        for atom in atoms(before + text):
            assert atom.end <= len(text) + 9


PLACES = Pool(
    "places",
    {"place": "a town"},
    tuple(
        PoolSentence(f"He lives in {name}.", ((Span(12, 12 + len(name), name), "place"),))
        for name in ("Paris", "London", "Berlin", "Users")
    ),
)


def surfaces(pool: Pool, text: str, written: str = "") -> set[str]:
    engine = ScriptedEngine("a", write=lambda request: written)
    settings = MethodSettings(proposals=("chunks", "lexicon", "models"))
    context = StageContext(pool, PromptSet(settings.prompt_version), settings)
    (found,), _ = extract([SentenceInput(Sentence(0, len(text), text), ())], [engine], context)
    return {candidate.span.text for candidate in found.candidates}


@pytest.mark.parametrize("surface", [surface for surface, _ in WHOLE])
def test_nobody_proposes_a_part_of_an_atom(surface: str) -> None:
    names = "\n- ".join(["Paris", "London", "Berlin", "Users", surface])
    found = surfaces(PLACES, f"Berlin, see {surface} there", written=f" {names}")
    assert "Berlin" in found
    assert surface in found  # the whole may be one
    assert not {name for name in found if name in surface and name != surface and name != "Berlin"}


def test_a_name_beside_an_atom_that_holds_it_is_proposed() -> None:
    text = "https://example.org/London is about London"
    engine = ScriptedEngine("a", write=lambda request: " London")
    settings = MethodSettings(proposals=("models",))
    context = StageContext(PLACES, PromptSet(settings.prompt_version), settings)
    (found,), _ = extract([SentenceInput(Sentence(0, len(text), text), ())], [engine], context)
    assert [candidate.span.start for candidate in found.candidates] == [text.rindex("London")]


def test_what_shows_the_members_what_is_none_enters_no_atom_either() -> None:
    sentence = PoolSentence("Ola wrote to Renn@London.org from Kiel", ())
    pool = Pool(PLACES.name, PLACES.types, (*PLACES.sentences, sentence))
    settings = MethodSettings()
    context = StageContext(pool, PromptSet(settings.prompt_version), settings)
    assert not {"London", "Renn"} & {span.text for span in pool_proposals(context)(sentence)}


def labelled(text: str, *names: str) -> tuple[str, list[Span]]:
    return text, [Span(text.index(name), text.index(name) + len(name), name) for name in names]


def test_parts_of_a_kind_may_be_proposed_where_the_pool_labels_some() -> None:
    assert divisible([labelled("mail to ola@example.org", "ola", "example.org")]) == {"email"}
    assert divisible([labelled("mail to ola@example.org", "ola@example.org")]) == frozenset()
    assert divisible([labelled("mail to ola@example.org")]) == frozenset()
    # One slip among many.
    whole = [labelled(f"mail to ola{number}@example.org", f"ola{number}@example.org") for number in range(30)]
    assert divisible([*whole, labelled("mail to ola@example.org", "ola")]) == frozenset()


def test_the_shipped_pools_have_no_label_that_is_refused() -> None:
    for name in ("logs", "news"):
        pool = load_pool(f"shipped:{name}")
        for sentence in pool.sentences:
            gate = AtomGate(sentence.text, pool.divisible)
            assert all(gate.admits(span) for span, _ in sentence.spans), sentence.where
    assert {"email", "bare-url"} <= load_pool("shipped:logs").divisible
    assert {"user", "root", "db-3"} <= surfaces(load_pool("shipped:logs"), "session of user@host for root@db-3 closed")


def test_a_domain_stays_whole_where_the_address_around_it_may_be_entered() -> None:
    text = "CONNECT mail.example.org:443 for ola@example.org"
    gate = AtomGate(text, {"bare-url", "email"})
    spans = {name: Span(text.index(name), text.index(name) + len(name), name) for name in ("mail.example.org", "ola")}
    assert all(map(gate.admits, spans.values()))
    assert not gate.admits(Span(13, 24, text[13:24]))  # example.org of mail.example.org
    assert gate.admits(Span(37, 48, "example.org"))


@pytest.mark.parametrize(
    "surface",
    [
        "https://example.org/search?Paris", "https://example.org/Wow!London", "HTTPS://EXAMPLE.ORG/Paris",
        "http://example.org.Paris", "https://\u043f\u0440\u0438\u043c\u0435\u0440.\u0440\u0444/Paris",
        "https://example.org/?q=Who?Paris", "www.Paris.Fr", "Paris.example.org:8080/Berlin", r"C:\Users\J.Paris\x",
        "./Paris", "../London", "/home/A.Paris/x", "eyJhbGciOi.JIUzI1NiIs.InR5cCI6",
    ],
)  # fmt: skip
def test_no_sentence_ends_inside_an_atom(surface: str) -> None:
    assert [sentence.text for sentence in segment(f"He saw {surface} there. Then he left.")] == [
        f"He saw {surface} there.", "Then he left.",
    ]  # fmt: skip
    pieces = [sentence.text for sentence in segment(f"{'x' * 30} {surface} y", max_chars=35)]
    assert pieces[0] == "x" * 30
    assert pieces[1].startswith(surface)


def test_where_an_address_and_its_sentence_end_the_next_one_begins() -> None:
    assert [s.text for s in segment("See https://example.org/a? Paris. (https://example.org/Berlin?). London")] == [
        "See https://example.org/a?", "Paris.", "(https://example.org/Berlin?).", "London",
    ]  # fmt: skip
    hindi = "देखें https://example.org/a।पेरिस में"
    assert [s.text for s in segment(hindi)] == ["देखें https://example.org/a।", "पेरिस में"]


@pytest.mark.parametrize("kind", ["prose", "log"])
@pytest.mark.parametrize(
    "address",
    [f"https://example.org/a?{'x=1&' * 400}city=Paris&to=London", f"https://example.org/{'a' * 1200}/Paris/London"],
)
def test_an_address_longer_than_a_sentence_may_be_is_entered_by_nobody(kind: TextKind, address: str) -> None:
    pool = replace(PLACES, text_kind=kind)
    settings = load_settings(
        Settings,
        environ={},
        overrides={
            "ensemble": {"preset": "instant"},
            "pools": {"default": "places", "paths": {"places": "shipped:news"}},
        },
    )
    engines = {name: InstantEngine(name) for name in settings.ensemble.members}
    pipeline = Pipeline(settings, engines, {"places": pool}, {"places": make_retriever("random", pool, k=2)})
    text = f"He saw Berlin {address} and London"
    (found,) = pipeline.extract([Document("1", text, "places")])
    assert isinstance(found, DocumentCandidates)
    spans = [candidate.span for sentence in found.sentences for candidate in sentence.candidates]
    assert {"Berlin", "London"} <= {span.text for span in spans}
    inside = range(text.index(address) + 1, text.index(address) + len(address))
    assert not [span for span in spans if span.start in inside or span.end in inside]


def test_an_address_in_a_text_without_spaces_ends_before_what_follows_it() -> None:
    text = "请看https://example.org/a，东京很大"
    proposals = {chunk.span.text for chunk in chunks(text)}
    assert {"https://example.org/a", "东京"} <= proposals
    assert not [proposal for proposal in proposals if "a，" in proposal]
