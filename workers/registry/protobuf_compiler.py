"""Protobuf schemas as registries keep them (the text of .proto files), compiled by Google's protoc.

It runs in a process of its own with bounded time and memory: whatever a schema does to the compiler, the worker lives.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from workers.registry.registered_schema import LONGEST_NAME, RegisteredSchema

__all__ = ["ProtobufFile", "ProtobufSchemaError", "compiled"]

_SECONDS: Final = 30
_MEMORY: Final = 1 << 30
_LONGEST: Final = 1_000_000
"""Characters of a schema with all that it refers to."""
_MOST_FIELDS: Final = 10_000
_LONG_NAME: Final = f"has a name of more than {LONGEST_NAME} characters"
_LARGEST_OUTPUT: Final = 16 << 20
_NAME: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*(/[A-Za-z0-9_-][A-Za-z0-9_.-]*)*\.proto")
_MAIN: Final = "registered-schema.proto"
_OWN: Final = "google/protobuf/"
"""Files that protoc has itself."""
_LONGEST_COMPLAINT: Final = 64 << 10
"""Bytes that are read of what protoc says: with a hostile schema it says gigabytes."""
_CHILD: Final = f"""
import os, resource, sys
def bound(what, most):
    allowed = resource.getrlimit(what)[1]
    if allowed == resource.RLIM_INFINITY or allowed > most:
        resource.setrlimit(what, (most, most))
bound(resource.RLIMIT_AS, {_MEMORY})
bound(resource.RLIMIT_CPU, {_SECONDS})
bound(resource.RLIMIT_FSIZE, {_LARGEST_OUTPUT})
# Isolated, it does not look where PYTHONPATH says, nor where `pip install --user` puts things.
sys.path += sys.argv.pop(1).split(os.pathsep)
from grpc_tools import protoc
sys.exit(protoc.main(sys.argv))
"""


class ProtobufSchemaError(ValueError):
    """A schema cannot be compiled, or is not safe to read values by; the message goes on after "the schema"."""


class ProtobufFile:
    """A compiled file: its messages by the places that message indexes name.

    ``largest``: fields of the message that has the most of them.
    """

    def __init__(self, files: Any, pool: Any, largest: int) -> None:
        from google.protobuf import message_factory

        self._file = pool.FindFileByName(files[-1].name)
        # The order of the file: of the compiled one messages are known by their names alone.
        self._parsed = files[-1]
        self._class_of = message_factory.GetMessageClass
        self.largest = largest

    def message_class(self, indexes: Sequence[int]) -> Any:
        """The class of a message: of the first ones in the file, then of those inside.

        Raises:
            LookupError: there is no such message.
        """
        descriptor = None
        around = self._parsed.message_type
        for index in indexes:
            if not 0 <= index < len(around):
                raise LookupError
            name, around = around[index].name, around[index].nested_type
            inside = self._file.message_types_by_name if descriptor is None else descriptor.nested_types_by_name
            descriptor = inside[name]
        if descriptor is None:
            raise LookupError
        return self._class_of(descriptor)

    def message_classes(self) -> dict[str, Any]:
        """The classes of the messages that are in no other message, by their names."""
        return {name: self._class_of(each) for name, each in self._file.message_types_by_name.items()}


@lru_cache(maxsize=64)
def compiled(schema: RegisteredSchema) -> ProtobufFile:
    """Compile a schema. Blocks for some tenths of a second, and at most for half a minute.

    Raises:
        ProtobufSchemaError: it is none, or too large.
        ModuleNotFoundError: ``el4ner[registry]`` is not installed.
    """
    # Imported here: who reads no Protobuf need not have it (el4ner[registry]).
    import grpc_tools
    from google.protobuf import descriptor_pb2, descriptor_pool
    from google.protobuf.message import DecodeError

    texts = _texts(schema)
    with TemporaryDirectory(prefix="el4ner-protoc-") as name:
        folder = Path(name)
        for path, text in texts.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")
        output = folder / "output" / "descriptors"
        output.parent.mkdir(exist_ok=True)
        includes = ("-I.", f"-I{Path(str(grpc_tools.__path__[0])) / '_proto'}")
        _run([*includes, "--include_imports", f"--descriptor_set_out={output}", _MAIN], folder)
        content = output.read_bytes()
    pool = descriptor_pool.DescriptorPool()
    try:
        files = descriptor_pb2.FileDescriptorSet.FromString(content).file
        for holder in (*files, *_messages(files)):
            # What is read has no extensions, but the parser would make them of a value, however large they are.
            holder.ClearField("extension")
        largest = _largest(files)
        for file in files:
            pool.Add(file)
    except (DecodeError, TypeError, ValueError) as error:
        if isinstance(error, ProtobufSchemaError):
            raise
        raise ProtobufSchemaError(f"cannot be understood: {error}") from error
    return ProtobufFile(files, pool, largest)


def _texts(schema: RegisteredSchema) -> dict[str, str]:
    """Files by their names, checked: a name comes from the registry."""
    texts = {_MAIN: schema.text}
    for reference in schema.references:
        if reference.name.startswith(_OWN):
            continue
        if _NAME.fullmatch(reference.name) is None or len(reference.name) > 255:
            raise ProtobufSchemaError(f"refers to {reference.name[:100]!r}, which is no name of a .proto file")
        if texts.setdefault(reference.name, reference.text) != reference.text:
            raise ProtobufSchemaError(f"refers to two files that are called {reference.name!r}")
    folders = {str(folder) for name in texts for folder in Path(name).parents}
    if clash := folders & texts.keys():
        raise ProtobufSchemaError(f"refers to {min(clash)!r} as a file and as a folder")
    if sum(map(len, texts.values())) > _LONGEST:
        raise ProtobufSchemaError(f"has more than {_LONGEST:,} characters, with all that it refers to")
    return texts


def _run(arguments: Sequence[str], folder: Path) -> None:
    complaints = folder / "output" / "complaints"
    packages = os.pathsep.join(path for path in sys.path if Path(path).is_absolute())
    try:
        with complaints.open("wb") as stderr:
            done = subprocess.run(
                [sys.executable, "-I", "-c", _CHILD, packages, *arguments],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                timeout=_SECONDS,
                check=False,
            )
    except subprocess.TimeoutExpired as error:
        raise ProtobufSchemaError(f"was not compiled within {_SECONDS} s") from error
    if done.returncode:
        with complaints.open("rb") as said_by_protoc:
            beginning = said_by_protoc.read(_LONGEST_COMPLAINT)
        lines = beginning.decode("utf-8", "replace").replace(f"{_MAIN}:", "line ").splitlines()
        said = [line for line in lines if line.startswith("line ") or ".proto:" in line]
        why = "; ".join(said[:3]) or f"which ended with {done.returncode}"
        raise ProtobufSchemaError(f"is refused by protoc: {why}")


def _largest(files: Any) -> int:
    """Fields of the message that has the most."""
    most = total = 0
    for message in _messages(files):
        total += len(message.field)
        most = max(most, len(message.field))
        if any(len(field.name) > LONGEST_NAME for field in message.field):
            raise ProtobufSchemaError(_LONG_NAME)
    if total > _MOST_FIELDS:
        raise ProtobufSchemaError(f"has more than {_MOST_FIELDS:,} fields")
    enums = [enum for holder in (*files, *_messages(files)) for enum in holder.enum_type]
    if any(len(value.name) > LONGEST_NAME for enum in enums for value in enum.value):
        raise ProtobufSchemaError(_LONG_NAME)
    return most


def _messages(files: Any) -> Iterator[Any]:
    waiting = [message for file in files for message in file.message_type]
    while waiting:
        message = waiting.pop()
        yield message
        waiting += message.nested_type
