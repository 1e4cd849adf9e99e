"""The few parts of the protobuf wire format that are needed to map weights instead of copying them.

`onnx.load` holds a 652 MB model twice (file bytes and message), and `SerializeToString` does so
again on the way out.  Here a file is scanned once: every large `raw_data` of an initializer is
left in the file, only its position is remembered; and a model is written by streaming the
initializers after a skeleton that does not contain them.

Format: https://protobuf.dev/programming-guides/encoding, field numbers from onnx.proto.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

__all__ = [
    "GRAPH_INITIALIZER",
    "MODEL_GRAPH",
    "TENSOR_RAW_DATA",
    "Skeleton",
    "WireError",
    "encode_tag",
    "encode_varint",
    "scan_model",
]

MODEL_GRAPH = 7
GRAPH_INITIALIZER = 5
TENSOR_NAME = 8
TENSOR_RAW_DATA = 9

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5

# Field number -> wire type of ModelProto: what a file has to start with to be an ONNX model.
_MODEL_FIELDS = {
    1: _VARINT,
    2: _LENGTH,
    3: _LENGTH,
    4: _LENGTH,
    5: _VARINT,
    6: _LENGTH,
    7: _LENGTH,
    8: _LENGTH,
    14: _LENGTH,
    20: _LENGTH,
    25: _LENGTH,
    26: _LENGTH,
}


class WireError(ValueError):
    """The bytes are not a message; `truncated` tells an early end from nonsense."""

    def __init__(self, message: str, *, truncated: bool) -> None:
        super().__init__(message)
        self.truncated = truncated


@dataclass
class Skeleton:
    """A serialised ModelProto without the large weights.

    Attributes:
        proto: bytes of the ModelProto; the initializers named in `raw_data` have no data.
        raw_data: name of the initializer -> (offset, length) of its data in the scanned buffer.
        has_graph: whether the model has a graph at all.
    """

    proto: bytes = b""
    raw_data: dict[str, tuple[int, int]] = field(default_factory=dict)
    has_graph: bool = False


def encode_varint(value: int) -> bytes:
    """Encode a non-negative integer, seven bits a byte, lowest first.

    Example:
        >>> encode_varint(300).hex()
        'ac02'
    """
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def encode_tag(number: int) -> bytes:
    """Encode the tag of a length-delimited field.

    Example:
        >>> encode_tag(7).hex()
        '3a'
    """
    return encode_varint(number << 3 | _LENGTH)


def _read_varint(buffer: memoryview, position: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while position < end:
        byte = buffer[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise WireError("a number has more than 64 bits", truncated=False)
    raise WireError("the file ends inside a number", truncated=True)


def _fields(
    buffer: memoryview, position: int, end: int, allowed: Mapping[int, int] | None = None
) -> Iterator[tuple[int, int, int, int, int]]:
    """Yield (field number, wire type, start of the tag, start of the value, end of the value).

    `allowed` is checked before the length is, so that nonsense is not taken for a truncation.
    """
    while position < end:
        start = position
        tag, position = _read_varint(buffer, position, end)
        number, wire_type = tag >> 3, tag & 7
        if allowed is not None and allowed.get(number) != wire_type:
            raise WireError(f"field {number} does not belong to a model", truncated=False)
        value = position
        if wire_type == _VARINT:
            _, position = _read_varint(buffer, position, end)
        elif wire_type == _FIXED64:
            position += 8
        elif wire_type == _FIXED32:
            position += 4
        elif wire_type == _LENGTH:
            length, value = _read_varint(buffer, position, end)
            position = value + length
        else:
            raise WireError(f"wire type {wire_type} does not exist", truncated=False)
        if number == 0:
            raise WireError("field number 0 does not exist", truncated=False)
        if position > end:
            missing = position - end
            raise WireError(f"{missing} bytes are missing at the end", truncated=True)
        yield number, wire_type, start, value, position


def scan_model(buffer: memoryview, threshold: int = 1024) -> Skeleton:
    """Split a serialised ModelProto into a small message and the places of its large weights.

    Args:
        buffer: the whole file, uint8.
        threshold: initializers with more bytes of `raw_data` than this stay where they are.

    Returns:
        The skeleton; its `proto` is a valid ModelProto.

    Raises:
        WireError: the bytes are not a ModelProto, or end too early.
    """
    skeleton = Skeleton()
    model: list[bytes | memoryview] = []
    for number, _, start, value, end in _fields(buffer, 0, len(buffer), _MODEL_FIELDS):
        if number == MODEL_GRAPH:
            graph = _scan_graph(buffer, value, end, threshold, skeleton)
            model += [encode_tag(MODEL_GRAPH), encode_varint(len(graph)), graph]
            skeleton.has_graph = True
        else:
            model.append(buffer[start:end])
    skeleton.proto = b"".join(model)
    return skeleton


def _scan_graph(
    buffer: memoryview, position: int, end: int, threshold: int, skeleton: Skeleton
) -> bytes:
    parts: list[bytes | memoryview] = []
    for number, wire_type, start, value, stop in _fields(buffer, position, end):
        if number == GRAPH_INITIALIZER and wire_type == _LENGTH and stop - value > threshold:
            tensor = _scan_tensor(buffer, value, stop, threshold, skeleton)
            parts += [encode_tag(GRAPH_INITIALIZER), encode_varint(len(tensor)), tensor]
        else:
            parts.append(buffer[start:stop])
    return b"".join(parts)


def _scan_tensor(
    buffer: memoryview, position: int, end: int, threshold: int, skeleton: Skeleton
) -> bytes:
    parts: list[memoryview] = []
    name = ""
    data: tuple[int, int] | None = None
    for number, wire_type, start, value, stop in _fields(buffer, position, end):
        if number == TENSOR_RAW_DATA and wire_type == _LENGTH and stop - value > threshold:
            data = value, stop - value
            continue
        if number == TENSOR_NAME and wire_type == _LENGTH:
            name = bytes(buffer[value:stop]).decode("utf-8", errors="replace")
        parts.append(buffer[start:stop])
    if data is None or not name:
        return bytes(buffer[position:end])
    skeleton.raw_data[name] = data
    return b"".join(parts)
