"""A file or folder that takes its name when it is whole: a program that ends in the middle leaves nothing behind."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from types import TracebackType

from el4ner.errors import PoolError

__all__ = ["Draft", "unwritable"]


class Draft:
    """Inside a ``with`` block: ``path`` is where to write; :meth:`finish` puts it where it belongs.

    Raises:
        PoolError: nothing can be written beside ``output``.
    """

    def __init__(self, output: Path, *, folder: bool = False) -> None:
        self._output = output
        try:
            self._beside = Path(tempfile.mkdtemp(dir=output.absolute().parent, prefix=f".{output.name}."))
            self.path = self._beside / "whole"  # by the rights that a new file or folder has
            if folder:
                self.path.mkdir()
        except OSError as error:
            raise unwritable(output, error) from error

    def finish(self) -> None:
        """In place of what is there: a file, or a folder's files one by one."""
        try:
            if self.path.is_dir() and self._output.is_dir():
                for file in sorted(self.path.iterdir()):
                    file.replace(self._output / file.name)
            else:
                self.path.replace(self._output)
        except OSError as error:
            raise unwritable(self._output, error) from error

    def __enter__(self) -> Draft:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self._beside, ignore_errors=True)


def unwritable(path: Path, error: OSError) -> PoolError:
    """What is raised of a file that the system does not let us write."""
    return PoolError(f"{path}: cannot be written: {error.strerror}")
