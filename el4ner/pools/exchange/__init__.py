"""Pools from and for the tools that people label text with: what ``el4ner pool import`` and ``export`` do."""

from el4ner.pools.exchange.pool_export import BRAT, EXPORT_FORMATS, ExportTally, brat_files, exported
from el4ner.pools.exchange.pool_import import (
    IMPORT_FORMATS,
    ImportOptions,
    ImportTally,
    Overlaps,
    imported_sentences,
    leave_out,
)
from el4ner.pools.exchange.pool_writer import PoolWriter, write_file, write_folder

__all__ = [
    "BRAT",
    "EXPORT_FORMATS",
    "IMPORT_FORMATS",
    "ExportTally",
    "ImportOptions",
    "ImportTally",
    "Overlaps",
    "PoolWriter",
    "brat_files",
    "exported",
    "imported_sentences",
    "leave_out",
    "write_file",
    "write_folder",
]
