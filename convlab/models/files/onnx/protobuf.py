"""Messages of protobuf, read by tables of their fields: a file that lies about its lengths allocates nothing.

The encoding: https://protobuf.dev/programming-guides/encoding/. A message is fields one after another; each is a tag,
which says its number and how it is written, and its content. Nothing says how many there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

# So many messages and lone numbers are more than a model has whose large arrays are plain bytes.
_MOST_ITEMS = 2**20
_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5


class Field(NamedTuple):
    """A field of a message.

    Attributes:
        name: its key in the result.
        kind: "int", "float", "text", "bytes", "floats" or "doubles" (arrays), or the fields of a message.
        many: whether it is a list.
    """

    name: str
    kind: str | Mapping[int, Any]
    many: bool = False


Fields = Mapping[int, Field]
_WIRES = {"int": _VARINT, "float": _FOUR_BYTES, "floats": _FOUR_BYTES, "doubles": _EIGHT_BYTES}
_DTYPES = {"floats": "<f4", "doubles": "<f8"}


def parsed(data: memoryview, fields: Fields) -> dict[str, Any]:
    """A message as a dictionary: a list for each field of many, and the other fields that it has.

    Fields that aren't in the table are passed over.

    >>> parsed(memoryview(bytes([8, 150, 1, 18, 2, 104, 105])), {1: Field("n", "int"), 2: Field("word", "text")})
    {'n': 150, 'word': 'hi'}

    Raises:
        ValueError: it is no such message.
    """
    return _Reader().message(data, fields)


class _Reader:
    def __init__(self) -> None:
        self.items = 0

    def message(self, data: memoryview, fields: Fields) -> dict[str, Any]:
        message: dict[str, Any] = {field.name: [] for field in fields.values() if field.many}
        start = 0
        while start < len(data):
            tag, start = self._varint(data, start)
            field, wire = fields.get(tag >> 3), tag & 7
            content, start = self._content(data, start, wire)
            if field is None:
                continue
            values = self._values(field, wire, content)
            if field.many:
                message[field.name] += values
            else:
                message[field.name] = values[-1]
        return message

    def _content(self, data: memoryview, start: int, wire: int) -> tuple[Any, int]:
        """A field's content, a number or bytes, and where the next field begins."""
        if wire == _VARINT:
            return self._varint(data, start)
        widths = {_EIGHT_BYTES: 8, _FOUR_BYTES: 4}
        if wire == _LENGTH:
            length, start = self._varint(data, start)
        elif wire in widths:
            length = widths[wire]
        else:
            raise ValueError(f"a field of the unknown type {wire}")
        if length > len(data) - start:
            raise ValueError(f"a length of {length} bytes where {len(data) - start} are left")
        return data[start : start + length], start + length

    def _varint(self, data: memoryview, start: int) -> tuple[int, int]:
        """A number of up to 64 bits, seven in each byte, the lowest first, and where it ends."""
        self.items += 1
        if self.items > _MOST_ITEMS:
            raise ValueError(f"more than {_MOST_ITEMS} fields")
        number = 0
        for place, byte in enumerate(data[start : start + 10]):
            number |= (byte & 127) << (7 * place)
            if byte < 128:
                return number & (2**64 - 1), start + place + 1
        raise ValueError("a number without an end")

    def _values(self, field: Field, wire: int, content: Any) -> list[Any]:
        kind = field.kind
        expected = _WIRES.get(kind, _LENGTH) if isinstance(kind, str) else _LENGTH
        packed = wire == _LENGTH and field.many
        if wire != expected and not packed:
            raise ValueError(f"{field.name}: a field of type {wire}, expected {expected}")
        if not isinstance(kind, str):
            return [self.message(content, kind)]
        if kind in _DTYPES:
            return [np.frombuffer(content, _DTYPES[kind])]
        if kind == "int":
            return [*map(_signed, self._packed(content) if wire == _LENGTH else [content])]
        if kind == "float":
            return np.frombuffer(content, "<f4").tolist()  # type: ignore[no-any-return]
        return [str(content, "utf-8") if kind == "text" else content]

    def _packed(self, data: memoryview) -> list[int]:
        numbers, start = [], 0
        while start < len(data):
            number, start = self._varint(data, start)
            numbers.append(number)
        return numbers


def _signed(number: int) -> int:
    return number - 2**64 if number >> 63 else number
