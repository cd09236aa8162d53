"""Which taught spans the answers of members mention, as JSON data: each once for a document, however often its
sentences do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from el4ner.errors import MessageError
from el4ner.serialize.tagged_documents import Json
from el4ner.types import NearTaught

if TYPE_CHECKING:
    # Most processes read no answers, and do without numpy.
    import numpy as np
    import numpy.typing as npt

__all__ = ["TaughtRows", "TaughtSpans", "near_from_json", "near_to_json", "taught_from_json", "taught_to_json"]

TaughtRows = dict[tuple[str, str, bytes], tuple[int, "npt.NDArray[np.float32]"]]
"""Taught spans that are mentioned, by name, type and what is said of them: place and numbers. A document's sentences
mention the same ones over and over."""
TaughtSpans = tuple[tuple[str, ...], tuple[str, ...], "npt.NDArray[np.float32]"]
"""Their names, types, and what is said of them: ``[spans, features, types + none]``."""


def near_to_json(near: NearTaught, taught: TaughtRows) -> dict[str, Any]:
    """What is said of one sentence; ``taught`` grows by what no sentence has mentioned before."""
    rows = zip(near.spans, near.labels, near.said, strict=True)
    return {
        "spans": [
            taught.setdefault((name, label, said.tobytes()), (len(taught), said))[0] for name, label, said in rows
        ],
        "vectors": near.vectors,
        "cosines": [[round(cosine, 4) for cosine in row] for row in near.cosines.tolist()],
    }


def taught_to_json(taught: TaughtRows) -> dict[str, Any]:
    """What all sentences of a document have mentioned."""
    return {
        "spans": [name for name, _, _ in taught],
        "labels": [label for _, label, _ in taught],
        "said": [[[round(share, 2) for share in row] for row in said.tolist()] for _, said in taught.values()],
    }


def taught_from_json(data: Json) -> TaughtSpans | None:
    """All that are mentioned in a document; None: nothing was taught, or nobody compares.

    Raises:
        MessageError: they do not fit together.
    """
    if "taught" not in data and not any("near" in item for item in data["sentences"]):
        return None
    import numpy as np

    taught = data.get("taught", {"spans": (), "labels": (), "said": ()})
    names, labels = tuple(taught["spans"]), tuple(taught["labels"])
    try:
        said = np.asarray(taught["said"], dtype=np.float32)
    except ValueError as error:
        raise MessageError("/taught: expected as many numbers for each taught span") from error
    if not names:
        said = np.zeros((0, 0, 0), np.float32)
    if not len(names) == len(labels) == len(said) or said.ndim != 3:
        raise MessageError("/taught: expected a label and numbers for each taught span")
    return names, labels, said


def near_from_json(item: Json, taught: TaughtSpans | None, at: str) -> NearTaught | None:
    """What is said of the sentence ``item``, which is ``at`` this place of the document.

    Raises:
        MessageError: it does not fit together.
    """
    if (near := item.get("near")) is None or taught is None:
        return None
    import numpy as np

    names, labels, said = taught
    places = near["spans"]
    if not all(0 <= place < len(names) for place in places):
        raise MessageError(f"{at}/near: it mentions taught spans that are not in /taught")
    try:
        cosines = np.asarray(near["cosines"], dtype=np.float32).reshape(len(item["candidates"]), len(places))
    except ValueError as error:
        raise MessageError(f"{at}/near: expected cosines with each taught span") from error
    return NearTaught(
        tuple(names[place] for place in places),
        tuple(labels[place] for place in places),
        cosines,
        near["vectors"],
        said[np.asarray(places, dtype=np.int64)],
    )
