"""Prompts as versioned files: ``prompts/<version>/<task>.jinja``, with a block each for system, user and answer.

A version's files never change once released: a new wording is a new version, since the version's fingerprint is part of
every cache key and manifest. Prompts of one task share their beginning: instruction → demonstrations → sentence → tail.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

import jinja2
from jinja2 import nodes

from el4ner.engines.base import Prompt
from el4ner.errors import ConfigError

__all__ = ["PromptSet"]


class PromptSet:
    """The templates of one version.

    Raises:
        ConfigError: there is no such version.
    """

    def __init__(self, version: str) -> None:
        self._templates, self._simple, self.version = _compiled(version)

    def render(self, task: str, **values: Any) -> Prompt:
        """The prompt of a task: its blocks ``system``, ``user`` and, where there is one, ``answer``."""
        return Prompt(
            self.block(task, "system", **values),
            self.block(task, "user", **values),
            self.block(task, "answer", **values) if "answer" in self._templates[task].blocks else "",
        )

    def block(self, task: str, name: str, **values: Any) -> str:
        """One block alone, e.g. the tail that asks about one span."""
        parts = self._simple.get((task, name))
        if parts is not None and len(values) == 1 and (value := values.get(parts.variable)) is not None:
            return str(value).join(parts.texts)
        template = self._templates[task]
        # Shared: the values are ours alone, and no block uses Jinja's globals, which would be copied for each.
        return "".join(template.blocks[name](template.new_context(values, shared=True)))


class _SimpleBlock(NamedTuple):
    """A block of texts with one variable between them: joined sooner than rendered, and asked for about each span."""

    variable: str
    texts: tuple[str, ...]


@cache
def _compiled(version: str) -> tuple[dict[str, jinja2.Template], dict[tuple[str, str], _SimpleBlock], str]:
    """The templates of a version, which of their blocks are simple, and its name and content for manifests and cache
    keys.

    They never change: a process compiles them once.
    """
    folder = resources.files("el4ner") / "prompts" / version
    if not folder.is_dir():
        known = sorted(f.name for f in (resources.files("el4ner") / "prompts").iterdir() if f.name.startswith("v"))
        raise ConfigError(f"method.prompt_version: there is no {version!r}; there are: {', '.join(known)}")
    sources = {
        file.name: file.read_text(encoding="utf-8")
        for file in sorted(folder.iterdir(), key=lambda f: f.name)
        if file.name.endswith(".jinja")
    }
    # Not HTML, and texts are data: nothing that a document holds is ever read as a template.
    environment = jinja2.Environment(
        loader=jinja2.DictLoader(sources), undefined=jinja2.StrictUndefined, trim_blocks=True, autoescape=False
    )
    templates = {name.removesuffix(".jinja"): environment.get_template(name) for name in sources}
    simple = {
        (name.removesuffix(".jinja"), block.name): parts
        for name, text in sources.items()
        for block in environment.parse(text).find_all(nodes.Block)
        if (parts := _simple(block)) is not None
    }
    digest = hashlib.sha256("\0".join(f"{name}\0{text}" for name, text in sources.items()).encode()).hexdigest()
    return templates, simple, f"{version}-{digest[:8]}"


def _simple(block: nodes.Block) -> _SimpleBlock | None:
    """A block as texts with one variable between them; None: it is none."""
    names: set[str] = set()
    texts = [""]
    for statement in block.body:
        if not isinstance(statement, nodes.Output):
            return None
        for part in statement.nodes:
            if isinstance(part, nodes.TemplateData):
                texts[-1] += part.data
            elif isinstance(part, nodes.Name):
                names.add(part.name)
                texts.append("")
            else:
                return None
    return _SimpleBlock(names.pop(), tuple(texts)) if len(names) == 1 else None
