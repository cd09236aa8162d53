"""Near-repeats of log lines: keys say what may differ, and spans are carried exactly or not at all."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from el4ner.text.template_miner import TemplateMiner
from el4ner.text.templates import _PATTERNS, Anchor, Template, sighted, template_of

DIGITS = st.integers(10**6, 10**9).map(str)  # longer than a year, or a part of a date
OCTETS = st.integers(0, 255)
# The same kind of field, drawn twice, gives two lines with one key.
FIELDS = {
    "syslog": st.sampled_from(["Jan  2 03:04:05", "Dec 31 23:59:59"]),
    "iso": st.sampled_from(["2025-01-02T03:04:05Z", "2024-12-31T23:59:59.999+01:00"]),
    "web": st.sampled_from(["02/Jan/2025:03:04:05 +0000", "31/Dec/2024:23:59:59 -0100"]),
    "ipv4": st.builds("{}.{}.{}.{}".format, OCTETS, OCTETS, OCTETS, OCTETS),
    "ipv6": st.ip_addresses(v=6).map(str),
    "num": DIGITS,
    "id": DIGITS.map("blk_{}".format) | DIGITS.map("blk_-{}".format),
    "path": DIGITS.map("/srv/part{}/log.txt".format),
    "uuid": st.uuids().map(str),
    "hex": st.integers(1, 2**32).map("{:#x}".format),
}
FIXED = st.sampled_from(["from", "user ada", "port", "sshd", "failed:", "é👍", "\x00", "\x00num\x00", "x=", "(", "-"])
SKELETONS = st.lists(
    st.sampled_from(sorted(FIELDS)).map(lambda k: (k, True)) | FIXED.map(lambda f: (f, False)), max_size=6
)
LINES = st.text(st.sampled_from("0123456789abcdefx:.-/ _[]Z\x00JanT中") | st.characters(codec="utf-8"), max_size=60)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[str, str]:
    skeleton = draw(SKELETONS)
    one, other = (" ".join(draw(FIELDS[text]) if field else text for text, field in skeleton) for _ in range(2))
    return one, other


def assert_sound(template: Template) -> None:
    assert "".join(template.line[start:end] for start, end, _ in template.pieces) == template.line
    assert all(start < end for start, end, _ in template.pieces)
    assert not any(not a.kind and not b.kind for a, b in zip(template.pieces, template.pieces[1:], strict=False))


@given(LINES)
@example("::" * 20)
@example("1:2:3 :: a::0:1x")
def test_pieces_are_the_line_and_anchors_on_the_same_line_are_the_identity(line: str) -> None:
    template = template_of(line)
    assert_sound(template)
    assert template.key == template_of(line).key
    for start in range(len(line)):
        for end in range(start + 1, len(line) + 1):
            anchor = template.anchor(start, end)
            if anchor is not None:
                span = template.locate(anchor)
                assert (span.start, span.end, span.text) == (start, end, line[start:end])


PARTS_OF_FIELDS = st.sampled_from(
    [
        "Jan",
        "Mon ",
        "2",
        "03:04:05",
        "2025-01-02",
        "T",
        "Z",
        "I0102 ",
        "192.0.2.7",
        "::",
        "fe80:",
        ":",
        "a",
        "dead1f",
        "0x",
        "00",
        "-",
        "-5",
        "=",
        "404",
        "aa:bb:cc:dd:ee:ff",
        "/",
        "[",
        "_",
        "٣",
        "²",
        "250102 030405 ",
        "\n",
    ]
)
PLAIN = re.compile("|".join(f"(?P<{kind}>{pattern})" for kind, pattern in _PATTERNS.items()))


@given(LINES | st.lists(PARTS_OF_FIELDS, max_size=9).map("".join))
def test_a_line_that_is_passed_over_word_by_word_has_the_fields_that_a_plain_search_finds(line: str) -> None:
    """But IPv6 addresses, which are looked at once more."""
    found = [(match.start(), match.lastgroup) for match in PLAIN.finditer(line) if match.lastgroup != "ipv6"]
    sighting = sighted(line)
    fields = dict(zip(sighting.bounds[1::2], sighting.kinds, strict=False))
    for start, kind in found:
        special = {"class": f"{line[start]}xx", "num": "nought", "hex": "nought"}
        assert fields[start] in (kind, special.get(kind or ""))
    plain_ipv6 = [match.span() for match in PLAIN.finditer(line) if match.lastgroup == "ipv6"]
    others = set(fields) - {start for start, _ in found}
    assert all(any(start <= place < end for start, end in plain_ipv6) for place in others)


@given(pairs())
def test_lines_that_differ_in_their_fields_have_one_key(lines: tuple[str, str]) -> None:
    one, other = map(template_of, lines)
    assert one.key == other.key
    assert [kind for _, _, kind in one.pieces] == [kind for _, _, kind in other.pieces]
    for first in range(len(one.pieces)):
        for last in range(first, len(one.pieces)):
            anchor = one.anchor(one.pieces[first].start, one.pieces[last].end)
            assert anchor is not None
            span = other.locate(anchor)
            assert (span.start, span.end) == (other.pieces[first].start, other.pieces[last].end)
            assert span.text == other.line[span.start : span.end]


@given(st.lists(LINES, min_size=2, max_size=2))
def test_lines_with_one_key_have_the_same_fixed_text(lines: list[str]) -> None:
    one, other = map(template_of, lines)
    fixed = [[kind or t.line[a:b] for a, b, kind in t.pieces] for t in (one, other)]
    assert (one.key == other.key) == (fixed[0] == fixed[1])


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (
            "Jan  2 03:04:05 a sshd[1]: from 192.0.2.7 port 5022",
            "Dec 10 13:04:05 a sshd[23]: from 10.0.0.1 port 61022",
            True,
        ),
        ("from 192.0.2.7", "from relay-7", False),
        ("from 192.0.2.7", "from 2001:db8::1", False),
        ("status 200", "status 404", False),
        ("status 404", "status 410", True),
        ("exit 0", "exit 1", False),
        ("exit 1", "exit 27", True),
        ("blk_-12 done", "blk_13 done", True),
        ("at 2001:db8::1: reset", "at ::1: reset", True),
        ("user ada", "user bob", False),
    ],
)
def test_what_has_one_key(one: str, other: str, same: bool) -> None:
    assert (template_of(one).key == template_of(other).key) is same


def test_a_span_is_carried_and_half_a_field_is_not() -> None:
    one, other = template_of("node-17 sshd[4]: from 192.0.2.7:22"), template_of("node-3 sshd[512]: from 10.0.0.1:4022")
    carried = one.anchor(0, 7), one.anchor(8, 12), one.anchor(22, 31)
    assert [other.locate(anchor).text for anchor in carried if anchor] == ["node-3", "sshd", "10.0.0.1"]
    assert one.anchor(22, 27) is None
    assert one.anchor(0, 0) is None
    assert one.anchor(0, 99) is None
    with pytest.raises(ValueError, match="is not an anchor"):
        other.locate(Anchor(0, 0, 99, 0))
    with pytest.raises(ValueError, match="is not an anchor"):
        other.locate(Anchor(0, 99, 0, 0))


def test_a_miner_lets_a_word_vary_once_it_has_seen_enough_of_them() -> None:
    miner = TemplateMiner(distinct=3)
    lines = [f"Invalid user {name} from 192.0.2.7" for name in ("ada", "bob", "eve", "mallory2", "ada", "ROOT", "a.b")]
    templates = [miner.template_of(line) for line in lines]
    keys = [template.key for template in templates]
    assert len({keys[0], keys[1], keys[2]}) == 3
    assert keys[2] == keys[3] == keys[4]  # the third word made it a field
    assert keys[5] not in keys[:5]  # a word in capitals is of another kind, and so is a dotted name
    assert keys[6] not in keys[:6]
    anchor = templates[2].anchor(13, 16)
    assert anchor is not None
    assert templates[3].locate(anchor).text == "mallory2"
    assert templates[3].anchor(13, 15) is None


def test_a_miner_never_generalises_two_words_at_once_nor_function_words() -> None:
    miner = TemplateMiner(distinct=2)
    words = [("opened", "ada"), ("closed", "bob"), ("reset", "eve")]
    keys = [miner.template_of(f"session {verb} for {name}").key for verb, name in words]
    assert len(set(keys)) == 3
    keys = [miner.template_of(f"it is {word} here").key for word in ("not", "always", "never", "unknown")]
    assert len(set(keys)) == 4


def test_what_a_miner_remembers_is_bounded() -> None:
    miner = TemplateMiner(distinct=2, memory=3)
    for number in range(50):
        miner.template_of(f"alpha beta{'x' * number} gamma {'y' * number}delta")
    assert max(len(miner._words), len(miner._fields), len(miner._learnt)) <= 3
    with pytest.raises(ValueError, match="distinct"):
        TemplateMiner(distinct=1)


WORDS = st.sampled_from(
    ["ada", "bob", "eve", "x7", "ROOT", "a.example", "from", "10.0.0.1", "12", "=", "[a]", "\x00", "::1", "/a1/b", "-5"]
)


@given(st.lists(st.lists(WORDS, min_size=1, max_size=4).map(" ".join), max_size=25), st.integers(1, 20))
def test_a_miners_templates_are_sound_and_repeatable(lines: list[str], memory: int) -> None:
    one, other = TemplateMiner(distinct=2, memory=memory), TemplateMiner(distinct=2, memory=memory)
    seen: dict[str, Template] = {}
    for line in lines:
        template = one.template_of(line)
        assert_sound(template)
        assert template.line == line
        sighting = sighted(line)
        form = other.form_of(sighting)
        assert template.pieces == form.template(sighting).pieces
        assert template.key == form.key
        for first in range(len(line)):
            anchor = template.anchor(first, len(line))
            if anchor is not None:
                begin, skip, end, past = form.extent(anchor)
                assert (sighting.bounds[begin] + skip, sighting.bounds[end] + past) == (first, len(line))
        like = seen.setdefault(template.key, template)
        assert [piece.kind for piece in template.pieces] == [piece.kind for piece in like.pieces]
        for (a, b, kind), (c, d, _) in zip(template.pieces, like.pieces, strict=True):
            assert kind or template.line[a:b] == like.line[c:d]
