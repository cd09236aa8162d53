"""Reading a GGUF file: its metadata, and its tensors one at a time.

The ``gguf`` package's own reader makes an array object of every one of a vocabulary's 262,144 entries, which takes
longer than everything else in a conversion; this one reads the header in a second. Blocks of quantised weights are
decoded by the ``gguf`` package.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from el4ner.errors import ModelError

__all__ = ["GgufFile", "GgufTensor"]

MAGIC: Final = b"GGUF"
SUPPORTED_VERSIONS: Final = (2, 3)
SCALARS: Final = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d",
}  # fmt: skip
STRING: Final = 8
ARRAY: Final = 9


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """One tensor's place in the file. ``shape`` is row-major, as numpy and torch count it."""

    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int


class GgufFile:
    """An open GGUF file; a context manager.

    Raises:
        ModelError: the file is not GGUF, or of a version that is not known.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.stat().st_size:
            raise ModelError(f"{path}: is empty")
        with path.open("rb") as file:
            self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._at = 0
        self.metadata: dict[str, Any] = {}
        self.tensors: dict[str, GgufTensor] = {}
        try:
            self._read_header()
        except (struct.error, KeyError, IndexError, ValueError, ArithmeticError, RecursionError) as error:
            self._bytes.close()
            raise ModelError(f"{path}: is not a readable GGUF file: {error!r}") from error

    def __enter__(self) -> GgufFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bytes.close()

    def read(self, name: str) -> npt.NDArray[np.float32]:
        """A whole tensor, decoded to float32: a copy."""
        tensor = self.tensors[name]
        return np.concatenate(list(self.pieces(name, max_values=math.prod(tensor.shape)))).reshape(tensor.shape)

    def pieces(self, name: str, *, max_values: int = 1 << 22) -> Iterator[npt.NDArray[np.float32]]:
        """A tensor's rows, decoded to float32: copies of some rows at a time, ``[rows, width]``."""
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
        from gguf.quants import dequantize

        tensor = self.tensors[name]
        kind = GGMLQuantizationType(tensor.kind)
        block, block_bytes = GGML_QUANT_SIZES[kind]
        rows, width = math.prod(tensor.shape[:-1]), tensor.shape[-1]
        row_bytes = width // block * block_bytes
        step = max(1, max_values // width)
        for first in range(0, rows, step):
            count = min(step, rows - first)
            start = self._data + tensor.offset + first * row_bytes
            raw = np.frombuffer(self._bytes[start : start + count * row_bytes], dtype=np.uint8)
            raw = raw.reshape(count, row_bytes)
            if kind == GGMLQuantizationType.F32:
                decoded = raw.view(np.float32)
            elif kind == GGMLQuantizationType.F16:
                decoded = raw.view(np.float16)
            else:
                decoded = dequantize(raw, kind)
            yield np.array(decoded, dtype=np.float32).reshape(count, width)

    def _read_header(self) -> None:
        if self._bytes[:4] != MAGIC:
            raise ModelError(f"{self.path}: is not a GGUF file")
        self._at = 4
        version = self._scalar("<I")
        if version not in SUPPORTED_VERSIONS:
            raise ModelError(f"{self.path}: GGUF version {version} is not supported")
        tensors, entries = self._scalar("<Q"), self._scalar("<Q")
        for _ in range(entries):
            key = self._string()
            self.metadata[key] = self._value(self._scalar("<I"))
        for _ in range(tensors):
            name = self._string()
            shape = tuple(self._scalar("<Q") for _ in range(self._scalar("<I")))
            kind, offset = self._scalar("<I"), self._scalar("<Q")
            self.tensors[name] = GgufTensor(name, shape[::-1], kind, offset)
        alignment = int(self.metadata.get("general.alignment", 32))
        self._data = -(-self._at // alignment) * alignment

    def _scalar(self, form: str) -> Any:
        (value,) = struct.unpack_from(form, self._bytes, self._at)
        self._at += struct.calcsize(form)
        return value

    def _string(self) -> str:
        length = self._scalar("<Q")
        start = self._at
        self._at += length
        return self._bytes[start : self._at].decode("utf-8")

    def _value(self, kind: int) -> Any:
        if kind == STRING:
            return self._string()
        if kind != ARRAY:
            return self._scalar(SCALARS[kind])
        of, length = self._scalar("<I"), self._scalar("<Q")
        if of in (STRING, ARRAY):
            return [self._value(of) for _ in range(length)]
        form = f"<{length}{SCALARS[of][1:]}"
        values = list(struct.unpack_from(form, self._bytes, self._at))
        self._at += struct.calcsize(form)
        return values
