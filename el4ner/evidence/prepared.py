"""Evidence that comes with the package: what the packaged members read in the shipped pools.

Files as in the cache folder, under keys that leave the number type out: whoever reads in float32, bfloat16 or int8
finds the same ones, since the states differ by rounding alone. ``make evidence`` makes them anew. Vectors are stored in
two to three bits a number (:func:`pack`). docs/method.md says what that costs, and what number types do.
"""

from __future__ import annotations

import hashlib
import io
import logging
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from el4ner.evidence.judges import Floats
from el4ner.models.files import DAMAGED_ARRAYS, write_atomically

__all__ = ["SHIPPED", "PreparedEvidence", "PreparedFile", "pack", "unpack"]

STEP: Final = 0.027
"""What packed numbers are multiples of. The cosine with a packed vector is off by STEP / √12 = 0.008 (standard
deviation), whatever its dimensions."""
log = logging.getLogger(__name__)

Arrays = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True)
class PreparedFile:
    """``digest``: of its bytes. Who uses the file has it in its fingerprint."""

    digest: str
    arrays: Arrays


@dataclass(frozen=True, slots=True)
class PreparedEvidence:
    """A folder of evidence.

    Args:
        folder: need not be there.
        fill: what is missing is added, by whoever makes or reads it. For ``make evidence``.
    """

    folder: Path
    fill: bool = False

    def find(self, name: str) -> PreparedFile | None:
        """The arrays of the file ``name``; None where there is none. A damaged file is passed over."""
        try:
            content = (self.folder / name).read_bytes()
            with np.load(io.BytesIO(content), allow_pickle=False) as stored:
                arrays = {key: np.asarray(stored[key]) for key in stored.files}
        except FileNotFoundError:
            return None
        except DAMAGED_ARRAYS as error:
            log.warning("prepared evidence is damaged", extra={"path": str(self.folder / name), "error": str(error)})
            return None
        return PreparedFile(hashlib.sha256(content).hexdigest()[:16], arrays)

    def add(self, name: str, arrays: Arrays) -> PreparedFile:
        """Write the arrays, and what :meth:`find` then says."""
        out = io.BytesIO()
        np.savez_compressed(out, allow_pickle=False, **arrays)
        write_atomically(self.folder / name, out.getvalue())
        return PreparedFile(hashlib.sha256(out.getvalue()).hexdigest()[:16], arrays)


SHIPPED: Final = PreparedEvidence(Path(__file__).parent / "shipped")
"""Of the shipped pools and the packaged members."""


def pack(vectors: Floats) -> dict[str, npt.NDArray[Any]]:
    """Vectors ``[..., dimensions]`` of unit length, each number rounded to a multiple of one step.

    Rounded numbers are few different ones, so Huffman's code makes them small. Cosines with them are right on average,
    since what is lost points anywhere.
    """
    rounded = np.rint(vectors / STEP).astype(np.int8)
    coder = zlib.compressobj(9, strategy=zlib.Z_HUFFMAN_ONLY)
    packed = coder.compress(rounded.tobytes()) + coder.flush()
    return {
        "packed": np.frombuffer(packed, dtype=np.uint8),
        "shape": np.asarray(vectors.shape, dtype=np.int64),
        "step": np.asarray(STEP, dtype=np.float32),
    }


def unpack(arrays: Arrays) -> Floats:
    """What :func:`pack` packed.

    Raises:
        KeyError, ValueError: it is something else.
    """
    try:
        content = zlib.decompress(arrays["packed"].tobytes())
    except zlib.error as error:
        raise ValueError(f"packed vectors cannot be read: {error}") from error
    rounded = np.frombuffer(content, dtype=np.int8).reshape(arrays["shape"])
    vectors: Floats = rounded.astype(np.float32) * arrays["step"].astype(np.float32)
    return vectors
