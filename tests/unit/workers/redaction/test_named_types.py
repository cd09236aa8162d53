"""A rule of redaction for a type that there is not is told: it would hold for nothing, and names would be published."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from workers.config import load_stream_settings
from workers.redaction.named_types import unknown_names


def told(redaction: dict[str, Any], **paths: str) -> list[str]:
    pools = {"pools": {"paths": {"news": "shipped:news", **paths}}}
    overrides = {"redaction": {"action": "keep", **redaction}, **pools}
    return list(unknown_names(load_stream_settings(environ={}, overrides=overrides)))


def test_a_misspelt_type_is_told_with_the_nearest_one() -> None:
    (mistake,) = told({"types": {"preson": "mask", "location": "mask", "email": "mask"}})
    assert mistake.startswith("redaction.types.preson: no pool of pools.paths has this type; nearest: 'person'")


def test_types_are_those_of_the_rules_pool(tmp_path: Path) -> None:
    file = tmp_path / "tickets.jsonl"
    file.write_text('{"text": "Ada came.", "spans": [{"start": 0, "end": 3, "label": "customer"}]}\n')
    rules = {"types": {"customer": "mask"}, "pools": {"tickets": {"person": "mask"}, "tickts": {"customer": "mask"}}}
    pool, of_pool = told(rules, tickets=str(file))
    assert pool.startswith("redaction.pools.tickts: in pools.paths there is no pool 'tickts'; nearest: 'tickets'")
    assert of_pool.startswith("redaction.pools.tickets.person: the pool does not have this type")


@pytest.mark.parametrize("redaction", [{}, {"types": {"preson": "mask"}}])
def test_of_pools_that_are_not_here_nothing_is_known(redaction: dict[str, Any]) -> None:
    assert told(redaction, other="/not/here") == []
