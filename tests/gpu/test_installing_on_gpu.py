"""On a machine with a GPU: `el4ner models gpu` finds it ready, and the engine takes the extension that it names."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from el4ner.engines.exllama.importing import import_library
from el4ner.engines.exllama.readiness import look
from el4ner.models.prepare import default_cache_dir

pytestmark = pytest.mark.gpu


def test_the_extension_that_is_shown_is_the_one_that_is_loaded(need: Callable[[str], None]) -> None:
    need("exllamav2")
    import_library("exllamav2")
    state = look(default_cache_dir())
    assert state.missing == ()
    assert state.driver is not None
    assert state.cards
    (library,) = [library for library in state.libraries if library.name == "exllamav2"]
    assert library.extension is not None
    assert Path(sys.modules["exllamav2_ext"].__file__ or "") == library.extension.path
