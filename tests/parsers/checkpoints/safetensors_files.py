"""safetensors files written by hand, so that what the library refuses to write can be tested."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def entry(dtype: str, shape: list[int], first: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [first, end]}


def written(file: Path, header: dict[str, Any] | bytes, data: bytes = b"", *, length: int | None = None) -> Path:
    """A file of this header and data; `length` is what its first eight bytes claim, by default the truth."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    file.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return file
