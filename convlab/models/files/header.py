"""The bytes of a safetensors file, and the JSON in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

# In bytes; as many layers as a model may have need less.
_LONGEST_HEADER = 2**23


def bytes_of_file(path: Path) -> tuple[bytes, bytes]:
    """The header's JSON and the whole file, if it can be a file of safetensors."""
    if path.exists() and not path.is_file():
        raise OSError("it is no file")
    with open(path, "rb") as file:
        size = path.stat().st_size
        start = file.read(9)
        length = int.from_bytes(start[:8], "little")
        if len(start) < 9 or start[8:] != b"{" or length > min(size - 8, _LONGEST_HEADER):
            raise ValueError("no header of safetensors")
        data = start + file.read(size - 9)
    return data[8 : 8 + length], data


def parsed_json(text: str | bytes) -> Any:
    """What JSON says, without a key that is there twice, and without numbers that it doesn't have."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        unique = dict(pairs)
        if len(unique) < len(pairs):
            raise ValueError("a key is there twice")
        return unique

    def no_number(name: str) -> NoReturn:
        raise ValueError(f"{name} is no number of JSON")

    return json.loads(text, object_pairs_hook=once, parse_constant=no_number)
