"""Few and short texts to quantise a small model by, in minutes instead of a quarter of an hour.

ExLlamaV2's converter takes 19 rows of its own texts for measuring and 115 for quantising, whatever it is asked for:
numbers of rows count for a file of texts alone (``-c``). Such a file is written here from the library's own texts. What
it makes is good enough to compare engines by; how good its answers are is not measured with it.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from el4ner.models.quantized import QuantizedName
from el4ner.quantizing.converters import Exl2Converter, Places

__all__ = ["FEW", "FewTexts", "Rows", "library_texts", "write_texts"]


@dataclass(frozen=True, slots=True)
class Rows:
    """How much is read.

    Attributes:
        measured: rows for measuring how each layer suffers, for each of some 36 ways to quantise it.
        quantised: rows for quantising itself.
        length: tokens of each.
    """

    measured: int
    quantised: int
    length: int


FEW: Final = Rows(measured=4, quantised=16, length=512)


def library_texts() -> Path:
    """The library's own texts of the web, found without importing it: that would compile it.

    Raises:
        FileNotFoundError: the library is not installed, or has no such file.
    """
    spec = importlib.util.find_spec("exllamav2")
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        file = Path(folder) / "conversion" / "standard_cal_data" / "c4.utf8"
        if file.is_file():
            return file
    raise FileNotFoundError("exllamav2 has no conversion/standard_cal_data/c4.utf8")


def write_texts(texts: Path, target: Path) -> Path:
    """A table of one column with a line of ``texts`` in each row, as the converter reads it."""
    import fastparquet
    import pandas

    lines = [line for line in texts.read_text(encoding="utf-8").splitlines() if line.strip()]
    target.parent.mkdir(parents=True, exist_ok=True)
    fastparquet.write(str(target), pandas.DataFrame({"text": lines}), write_index=False)
    return target


class FewTexts(Exl2Converter):
    """The converter with the rows of a table, and nothing else changed."""

    def __init__(self, table: Path, rows: Rows = FEW) -> None:
        self._table = table
        self._rows = rows

    def command(self, name: QuantizedName, places: Places) -> list[str]:
        """As the converter's own, with five options more."""
        rows = self._rows
        numbers = {"-mr": rows.measured, "-ml": rows.length, "-r": rows.quantised, "-l": rows.length}
        more = [word for option, number in numbers.items() for word in (option, str(number))]
        return [*super().command(name, places), "-c", str(self._table), *more]
