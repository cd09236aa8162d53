"""The rows of the table: each a named change of the settings."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from el4ner.config import STREAM_SECTIONS, Settings, load_settings
from el4ner.types import Mode

__all__ = ["REFERENCE", "SPACY", "Cost", "Row", "cost_of", "rows_of", "selected", "settings_of"]

Cost = Literal["cheap", "slow", "paper"]
"""On how many sentences a row is measured: ``cheap`` rows read each span once, ``slow`` ones ask in context or have the
models write, ``paper`` is the paper's whole procedure."""
REFERENCE: Final = "default"
SPACY: Final = "spacy"
IN_CONTEXT: Final = {"method": {"evidence": ["in_context"]}}


@dataclass(frozen=True)
class Row:
    """``key`` is what ``--only`` takes. ``overrides`` are nested as in a configuration file; None: no pipeline of ours.
    ``file``: a configuration file that is read before them."""

    key: str
    group: str
    label: str
    overrides: Mapping[str, Any] | None
    file: Path | None = None


def rows_of(ensemble: str, third: Path | None) -> list[Row]:
    """Every row, the reference first.

    Args:
        ensemble: the preset that the reference is.
        third: a configuration file with one more member than the preset has.

    Raises:
        ConfigError: a file cannot be read.
        ValueError: ``third`` has no member that the preset has not.
    """
    preset = {"ensemble": {"preset": ensemble}}
    reference = Row(REFERENCE, "ensemble", f"the reference: {ensemble} settings", preset)
    members = settings_of(reference).ensemble.members
    found = [reference]

    def add(key: str, group: str, label: str, overrides: Mapping[str, Any], file: Path | None = None) -> None:
        found.append(Row(key, group, label, {**({} if file else preset), **overrides}, file))

    for name in members if len(members) > 1 else ():
        alone = {"preset": ensemble, "members": [name], "verifier": None}
        add(f"alone-{name}", "ensemble", f"{name} alone", {"ensemble": alone})
    if third is not None:
        new = [name for name in _members_in(third) if name not in members]
        if len(new) != 1:
            raise ValueError(f"{third}: ensemble.members must name one member more than {', '.join(members)} has")
        add("third", "ensemble", f"with {new[0]}", {}, third)
        add("third-alone", "ensemble", f"{new[0]} alone", {"ensemble": {"members": new, "verifier": None}}, third)
    add("adaptive", "weighing", "adaptive: the next member about unclear spans", {"method": {"adaptive": True}})
    add("weights-even", "weighing", "all evidence weighed the same", {"method": {"weights": "even"}})
    for kind in ("neighbours", "prototypes"):
        add(kind, "evidence", f"{kind} only", {"method": {"evidence": [kind]}})
    every = ["neighbours", "prototypes", "in_context"]
    add("all-evidence", "evidence", "neighbours, prototypes and in context", {"method": {"evidence": every}})
    add("in-context", "evidence", "in context only", IN_CONTEXT)
    mean = {"method": {"evidence": ["in_context"], "weights": "even"}}
    add("in-context-even", "evidence", "in context only, plain mean", mean)
    for kind in ("span", "sentence", "random", "none"):
        add(f"demos-{kind}", "demonstrations", f"in context, {kind} retrieval", {**IN_CONTEXT, **_retrieval(kind=kind)})
    for k in (1, 3, 5, 8):
        found_by = _retrieval(kind="span", k=k)
        add(f"demos-{k}", "demonstrations", f"in context, span retrieval, k = {k}", {**IN_CONTEXT, **found_by})
    for key, proposers in (
        ("boundaries", ["boundaries"]),
        ("boundaries-chunks", ["boundaries", "chunks"]),
        ("boundaries-lexicon", ["boundaries", "lexicon"]),
        ("chunks", ["chunks"]),
        ("lexicon", ["lexicon"]),
        ("chunks-lexicon", ["chunks", "lexicon"]),
        ("union", ["boundaries", "chunks", "lexicon", "models"]),
        ("models", ["models"]),
    ):
        add(f"by-{key}", "proposals", f"by {' + '.join(proposers)}", {"method": {"proposals": proposers}})
    for kind in ("soft", "hard"):
        add(f"validation-{kind}", "validation", f"{kind} validation", {"method": {"validation": kind}})
    add("embedder", "baselines", "no language model: the embedder's vectors", {"method": {"encoder": "embedder"}})
    found.append(Row(SPACY, "baselines", "spaCy, trained on OntoNotes (without articles)", None))
    add("paper", "baselines", "paper mode", {"method": {"mode": "paper"}})
    return found


def selected(rows: Sequence[Row], only: Sequence[str]) -> list[Row]:
    """The reference and the rows named; all where none is.

    Raises:
        ValueError: there is no such row.
    """
    unknown = sorted(set(only) - {row.key for row in rows})
    if unknown:
        raise ValueError(f"--only {', '.join(unknown)}: no such row; there are: {', '.join(row.key for row in rows)}")
    return [row for row in rows if not only or row.key in (REFERENCE, *only)]


def settings_of(row: Row) -> Settings:
    """The row's settings, without what the environment says; nothing is taken over from sentences before.

    Raises:
        ConfigError: they are wrong.
    """
    overrides = dict(row.overrides or {})
    overrides["method"] = {**overrides.get("method", {}), "repeats": "off"}
    return load_settings(Settings, row.file, environ={}, overrides=overrides, passed_over=STREAM_SECTIONS)


def cost_of(row: Row) -> Cost:
    """By the settings, so that it stays true when the defaults change."""
    if row.overrides is None:
        return "cheap"
    settings = settings_of(row)
    method = settings.method
    if method.mode is Mode.PAPER:
        return "paper"
    asks = "in_context" in method.evidence or not method.evidence or "models" in method.proposals
    return "slow" if asks or method.validation_kind != "off" or settings.retrieval.query_spans == "models" else "cheap"


def _retrieval(**chosen: Any) -> dict[str, Any]:
    return {"retrieval": chosen}


def _members_in(file: Path) -> Sequence[str]:
    load_settings(Settings, file, environ={}, passed_over=STREAM_SECTIONS)  # says what is wrong with it
    members = tomllib.loads(file.read_text(encoding="utf-8")).get("ensemble", {}).get("members", ())
    return [str(name) for name in members]
