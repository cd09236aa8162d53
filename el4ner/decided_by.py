"""The fingerprint of everything but the text that decides what stages say: where it is equal, so are the answers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from el4ner.code_fingerprint import code_fingerprint
from el4ner.config import Settings
from el4ner.serialize import fingerprint, manifest_to_json
from el4ner.types import Manifest

__all__ = ["decided_by"]

_THROUGHPUT: Final = ("device", "threads", "max_batch_tokens", "prefix_cache_mb", "server")
"""Settings of a model that change how fast it answers, not what. (What servers serve is in their fingerprint.)"""


def decided_by(settings: Settings, manifests: Iterable[Manifest]) -> str:
    """Of the settings and the code, and of who answers: members with their weights and float types, prompts, pool,
    evidence. Not of how fast that is, nor of the pool's name, which no model is shown.

    Args:
        settings: of the pipeline.
        manifests: of the stages in question.
    """
    dumped = settings.model_dump(mode="json", include={"ensemble", "models", "retrieval", "method"})
    ensemble = {**dumped["ensemble"], "verifier": settings.verifier, "preset": None}
    models = {
        name: {key: value for key, value in dumped["models"][name].items() if key not in _THROUGHPUT}
        for name in settings.ensemble.members
    }
    producers = [{**manifest_to_json(manifest), "pool": ""} for manifest in manifests]
    return fingerprint(code_fingerprint(), ensemble, models, dumped["retrieval"], dumped["method"], producers)
