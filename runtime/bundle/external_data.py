"""Find the files that an ONNX graph reads its weights from, without the onnx package.

ONNX Runtime opens these files by the names in the graph, so that their hashes must be checked like the graph's.
"""

from collections.abc import Iterator
from io import BufferedReader

_MOST_LEVELS = 100
"""Nested messages that protobuf reads."""
_LONGEST_TEXT = 2**16
"""Longest name of a file, in bytes."""

# Fields of the messages of onnx.proto that lead to tensors: the number of the field, and the message that it holds.
_FIELDS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse tensor"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {
        **{5: "tensor", 6: "graph", 10: "tensor", 11: "graph"},
        **{22: "sparse tensor", 23: "sparse tensor"},
    },
    "sparse tensor": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
    "entry": {1: "key", 2: "value"},
}


def external_files(stream: BufferedReader) -> set[str]:
    """Return the names of the files with external data of a graph.

    Args:
        stream: The graph, from its beginning.

    Raises:
        ValueError: The content is no ONNX graph.
    """
    end = stream.seek(0, 2)
    stream.seek(0)
    return set(_locations(stream, "model", end, level=0))


def _locations(stream: BufferedReader, message: str, end: int, *, level: int) -> Iterator[str]:
    if level > _MOST_LEVELS:
        raise ValueError("its messages are nested too deeply")
    key = value = ""
    for number, stop in _length_delimited(stream, end):
        inner = _FIELDS[message].get(number)
        if inner == "key":
            key = _text(stream, stop)
        elif inner == "value":
            value = _text(stream, stop)
        elif inner is not None:
            yield from _locations(stream, inner, stop, level=level + 1)
        stream.seek(stop)
    if key == "location":
        yield value


def _length_delimited(stream: BufferedReader, end: int) -> Iterator[tuple[int, int]]:
    """Yield the number and the end of each field with a length, at its beginning; skip all other fields."""
    while stream.tell() < end:
        tag = _varint(stream)
        number, kind = tag >> 3, tag & 7
        if kind == 0:
            _varint(stream)
        elif kind in (1, 5):
            stream.seek(8 if kind == 1 else 4, 1)
        elif kind == 2:
            stop = _varint(stream) + stream.tell()
            if stop > end:
                raise ValueError("a field is longer than its message")
            yield number, stop
        else:
            raise ValueError(f"a field has the unknown type {kind}")
    if stream.tell() != end:
        raise ValueError("a field is longer than its message")


def _varint(stream: BufferedReader) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = stream.read(1)
        if not byte:
            break
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise ValueError("a number is cut off")


def _text(stream: BufferedReader, stop: int) -> str:
    if stop - stream.tell() > _LONGEST_TEXT:
        raise ValueError("a name is too long")
    return stream.read(stop - stream.tell()).decode("utf-8", errors="replace")
