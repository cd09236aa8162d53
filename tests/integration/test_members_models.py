"""The real ensemble: what it makes of inputs that were wrong once, and that its members apart say bit by bit what one
process with both says."""

from __future__ import annotations

from importlib import resources
from typing import Any

import orjson
import pytest

from el4ner.assemble import assemble
from el4ner.config import Settings, load_settings
from el4ner.errors import DocumentError
from el4ner.loader import load_members, load_pipeline
from el4ner.serialize import answers_from_json, answers_to_json, dumps
from el4ner.stages.combine import Combiner
from el4ner.tagger import Tagger
from el4ner.types import Document, DocumentAnswers

pytestmark = [pytest.mark.models, pytest.mark.timeout(1200)]


def good(found: Any) -> Any:
    assert not isinstance(found, DocumentError), found
    return found


@pytest.mark.slow
@pytest.mark.long  # every time: the same bit by bit with scripted members, and apart over a broker with instant ones
def test_the_default_members_apart_decide_as_one_process() -> None:
    settings = load_settings(Settings, environ={}, overrides={"ensemble": {"preset": "default"}})
    lines = (resources.files("el4ner") / "samples" / "demo.jsonl").read_bytes().splitlines()[:12]
    documents = [
        Document(str(number), data["text"], data.get("pool")) for number, data in enumerate(map(orjson.loads, lines))
    ]
    # With the whole ensemble first: it reads the pools and weighs the evidence, where that is not on disk.
    with load_pipeline(settings) as pipeline:
        candidates = [good(found) for found in pipeline.extract(documents)]
        # In a process of its own no member has read these sentences before: what is in a cache is read in passes of
        # another shape, whose last bits differ.
        for engine in pipeline.engines.values():
            engine.forget_prompts()  # type: ignore[attr-defined]
        whole = [good(found) for found in pipeline.classify(candidates)]
    said: list[list[tuple[tuple[str, ...], DocumentAnswers]]] = [[] for _ in documents]
    for member in settings.ensemble.members:
        with load_members(settings, [member], stages=["classify"]) as pipeline:
            assert list(pipeline.engines) == [member]
            for own, found in zip(said, pipeline.answer(candidates), strict=True):
                own.append(((member,), answers_from_json(orjson.loads(dumps(answers_to_json(good(found)))))))
    combiner = Combiner.from_settings(settings)
    assert sum(len(item.typed) for one in whole for item in one.sentences) > 50
    for expected, parts in zip(whole, said, strict=True):
        combined = combiner.types(parts[::-1], settings.ensemble.members)
        assert combined.manifest == expected.manifest
        assert combined.sentences == expected.sentences


COLOURED = "\x1b[1mdb-3.example.org\x1b[0m from \x1b[33m10.2.3.4\x1b[0m as user root"
FREYA = ("freya", "user")
LOGS: dict[str, set[tuple[str, str]]] = {
    COLOURED: {("db-3.example.org", "host"), ("10.2.3.4", "ip-address"), ("root", "user")},
    "dhcp 0c:9d:92:1f:77:a4 bound 10.0.0.17 lease 3f2a91c0-7d1e-4b52-9c3a-5f6e7d8c9b0a": {
        ("0c:9d:92:1f:77:a4", "mac-address"),
        ("3f2a91c0-7d1e-4b52-9c3a-5f6e7d8c9b0a", "uuid"),
    },
    **{
        f"{address} - - [12/Nov/2026:08:01:02 +0100] {request} 157": {(address, "ip-address")}
        for address, request in (
            ("2001:db8::7", r'"\x16\x03" 400'),
            ("2001:db8::7", '"GET /index.html HTTP/1.1" 200'),
            ("fe80::1", '"-" 408'),
            ("2a02:8109:9c00:1234::abcd", '"" 400'),
            ("192.0.2.7", r'"\x00\x00\x00" 400'),
            ("::ffff:192.0.2.128", '"quit" 400'),
        )
    },
    # Hosts that are plain words: nearly all that the pool showed had a hyphen or a digit.
    **{
        f"{header}: {message}": {(host, "host"), (process, "process"), *users}
        for header, message, host, process, users in (
            (
                "Jan  3 10:12:40 thor su(pam_unix)[81]",
                "session opened for user freya by (uid=0)",
                "thor",
                "su",
                {FREYA},
            ),
            ("Jan  3 10:11:12 thor sshd(pam_unix)[77]", "check of a password failed; user unknown", "thor", "sshd", ()),
            ("Mar 17 05:00:09 orchard ftpd[2044]", "connection timed out after 900 s", "orchard", "ftpd", ()),
            ("Mar 17 05:01:30 ORION gdm[77]", "no display", "ORION", "gdm", ()),
            ("Feb  9 01:02:03 pluto kernel", "usb 1-1: new device, id 12", "pluto", "kernel", ()),
        )
    },
}
# Ids that are no UUIDs.
OTHER_IDS = ("container 9f8e7d6c5b4a started", "BLOCK blk_-3544583377289625738 was deleted")
NEWS = {
    "The Sydney Opera House opened in 1973.": ("Sydney Opera House", "Sydney"),
    "The Bank of England raised rates.": ("Bank of England", "England"),
}


def test_the_default_ensemble_tags_what_was_not_tagged_once() -> None:
    settings = load_settings(Settings, environ={}, overrides={"ensemble": {"preset": "default"}})
    with Tagger(load_pipeline(settings)) as tagger:
        *tagged, plain = tagger.tag(
            [Document(line, line, "logs") for line in (*LOGS, "db-3.example.org from 10.2.3.4 as user root")]
        )
        for document, expected in zip(tagged, LOGS.values(), strict=True):
            assert expected <= {(entity.text, entity.type) for entity in document.entities}, document.text
        assert [(e.text, e.type, e.confidence) for e in tagged[0].entities] == [
            (e.text, e.type, e.confidence) for e in plain.entities
        ]
        assert all(COLOURED[entity.start : entity.end] == entity.text for entity in tagged[0].entities)
        for document in tagger.tag([Document(line, line, "logs") for line in OTHER_IDS]):
            assert "uuid" not in {entity.type for entity in document.entities}, document.text
        for document, (whole, part) in zip(
            tagger.tag([Document(t, t, "news") for t in NEWS]), NEWS.values(), strict=True
        ):
            names = [entity.text for entity in document.entities]
            assert whole in names
            assert part not in names
        candidates = tagger.pipeline.extract([Document("n", "The University of Lenz Press published it.", "news")])
        nested = assemble(good(tagger.pipeline.classify([good(candidates[0])])[0]), overlaps="nested")
        organizations = [entity.text for entity in nested.entities if entity.type == "organization"]
        assert len(organizations) == 1
        (document,) = tagger.tag([Document("u", "See https://example.org/Berlin/London?q=Paris now.", "news")])
        assert not {entity.text for entity in document.entities} & {"Berlin", "London", "Paris"}
