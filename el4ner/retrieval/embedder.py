"""Texts into vectors, by sentence-transformers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from el4ner.engines.torch.waiting import import_torch
from el4ner.errors import ModelError
from el4ner.extras import extras_explained
from el4ner.models.safety import check_folder

__all__ = ["Embedder", "RememberingEmbedder", "SentenceTransformerEmbedder", "Vectors"]

Vectors = npt.NDArray[np.float32]

_REMEMBERED: Final = 20_000
"""Texts: 30 MB of vectors."""


class Embedder(Protocol):
    """Vectors of unit length, so that a dot product is the cosine."""

    @property
    def fingerprint(self) -> str:
        """Changes whenever the vectors may."""

    def embed(self, texts: Sequence[str], *, progress: Callable[[int], None] | None = None) -> Vectors:
        """Shape (len(texts), dimensions), rows of unit length. ``progress`` is told how many texts are done."""


class SentenceTransformerEmbedder:
    """A sentence-transformers model from a local folder, on the CPU unless told otherwise.

    The model is loaded when the first text is embedded, or by :meth:`load`: importing sentence-transformers takes
    seconds, and where nothing is compared, or vectors come from files, the fingerprint is enough.

    Raises:
        ModelError: the folder holds what is refused (:mod:`el4ner.models.safety`), or no weights. That it is no
            sentence-transformers model is raised when it is loaded.
    """

    def __init__(self, folder: Path, *, device: str = "cpu", batch_size: int = 64) -> None:
        check_folder(folder, shared=True)
        self._folder = folder
        self._device = device
        self._fingerprint = _digest(folder)
        self._batch_size = batch_size

    def load(self) -> None:
        """Load the model now, if it is not yet.

        Raises:
            ModelError: the folder is no sentence-transformers model.
        """
        assert self._model is not None

    @cached_property
    def _model(self) -> Any:
        with extras_explained("retrieval.embedder"):
            import_torch()
            from safetensors import SafetensorError
            from sentence_transformers import SentenceTransformer

        try:
            model = SentenceTransformer(
                str(self._folder),
                device=self._device,
                local_files_only=True,
                trust_remote_code=False,
                model_kwargs={"use_safetensors": True},
            )
        except (OSError, ValueError, SafetensorError) as error:
            raise ModelError(f"{self._folder}: is no sentence-transformers model: {error}") from error
        # A text's [SEP] is four characters of it, and no end of the text.
        model.tokenizer.split_special_tokens = True
        return model

    @property
    def fingerprint(self) -> str:
        """Of the weights' file."""
        return self._fingerprint

    def embed(self, texts: Sequence[str], *, progress: Callable[[int], None] | None = None) -> Vectors:
        """As :class:`Embedder` says. Equal texts are embedded once."""
        unique = list(dict.fromkeys(texts))
        if not unique:
            return np.zeros((0, int(self._model.get_embedding_dimension())), dtype=np.float32)
        step = self._batch_size * 16
        parts = []
        for start in range(0, len(unique), step):
            part = unique[start : start + step]
            parts.append(
                np.asarray(
                    self._model.encode(
                        part, batch_size=self._batch_size, normalize_embeddings=True, show_progress_bar=False
                    ),
                    dtype=np.float32,
                )
            )
            if progress is not None:
                progress(len(part))
        rows = {text: row for row, text in enumerate(unique)}
        vectors: Vectors = np.concatenate(parts)[[rows[text] for text in texts]]
        return vectors

    def embed_in_context(self, texts: Sequence[str], spans: Sequence[Sequence[tuple[int, int]]]) -> Vectors:
        """The mean of a span's token vectors, its sentence read as a whole: shape (number of spans, dimensions).

        ``spans[i]`` are (start, end) in ``texts[i]``, code points. A span behind what the model reads gets zeros.
        """
        vectors = []
        width = int(self._model.get_embedding_dimension())
        for start in range(0, len(texts), self._batch_size):
            part = list(texts[start : start + self._batch_size])
            tokens = self._model.encode(part, output_value="token_embeddings", show_progress_bar=False)
            for text, places, encoded in zip(part, spans[start : start + self._batch_size], tokens, strict=True):
                offsets = np.asarray(
                    self._model.tokenizer(text, return_offsets_mapping=True, truncation=True)["offset_mapping"]
                )
                states = np.asarray(encoded.float().cpu(), dtype=np.float32)[: len(offsets)]
                starts, ends = offsets[: len(states), 0], offsets[: len(states), 1]
                for first, last in places:
                    inside = (starts < last) & (ends > first) & (ends > starts)
                    vectors.append(states[inside].mean(axis=0) if inside.any() else np.zeros(width, np.float32))
        return np.stack(vectors) if vectors else np.zeros((0, width), dtype=np.float32)


class RememberingEmbedder(Embedder):
    """For pools that change, and are mostly as they were: the last texts are not embedded again.

    Args:
        embedder: is asked about the others.
    """

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._known: dict[str, Vectors] = {}

    @property
    @override
    def fingerprint(self) -> str:
        return self._embedder.fingerprint

    @override
    def embed(self, texts: Sequence[str], *, progress: Callable[[int], None] | None = None) -> Vectors:
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new or not texts:
            vectors = self._embedder.embed(new, progress=progress)
            if not texts:
                return vectors
            self._known.update(zip(new, vectors, strict=True))
        together: Vectors = np.stack([self._known[text] for text in texts])
        while len(self._known) > _REMEMBERED:
            del self._known[next(iter(self._known))]
        return together


def _digest(folder: Path) -> str:
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ModelError(f"{folder}: holds no .safetensors weights; pickled weights are not loaded")
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as handle:
            digest.update(hashlib.file_digest(handle, "sha256").digest())
    return digest.hexdigest()[:16]
