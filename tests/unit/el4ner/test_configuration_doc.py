"""docs/configuration.md names every setting of the method's sections, and no value of a choice that there is not."""

from __future__ import annotations

import re
from typing import get_args

import pytest

from el4ner.canonical.entity_settings import EntitySettings
from el4ner.config import (
    EnsembleSettings,
    ExllamaSettings,
    MethodSettings,
    ModelSettings,
    PoolsSettings,
    RetrievalSettings,
    Section,
    ServerSettings,
    preset_names,
)
from el4ner.redaction.redaction_settings import RedactionRule, RedactionSettings
from tests.support.paths import ROOT

TEXT = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
SECTIONS = [
    EnsembleSettings,
    EntitySettings,
    ExllamaSettings,
    MethodSettings,
    ModelSettings,
    PoolsSettings,
    RedactionRule,
    RedactionSettings,
    RetrievalSettings,
    ServerSettings,
]


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.__name__)
def test_every_setting_is_documented(section: type[Section]) -> None:
    named = set(re.findall(r"`(\w+)`", TEXT)) | set(re.findall(r"^#? ?(\w+) = ", TEXT, re.MULTILINE))
    tables = {name for table in re.findall(r"^\[([\w.]+)\]", TEXT, re.MULTILINE) for name in table.split(".")}
    assert not set(section.model_fields) - named - tables


def test_every_engine_attention_and_preset_is_documented() -> None:
    choices = [*get_args(ModelSettings.model_fields["engine"].annotation)]
    choices += get_args(ExllamaSettings.model_fields["attention"].annotation)
    choices += get_args(ServerSettings.model_fields["kind"].annotation)
    for choice in (*choices, *preset_names()):
        assert re.search(rf"[`\s]{re.escape(choice)}[`\s;:]", TEXT), choice
