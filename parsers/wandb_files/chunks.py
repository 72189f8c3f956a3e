"""The chunks of many blocks of a `.wandb` file by compiled code: their checksums checked, the records put together.

Only undamaged blocks are taken; whatever is out of the ordinary is left to `parsers.wandb_files.log`, which says what
it is. Importing this module loads numba; it is imported for large files only.
"""

from __future__ import annotations

from typing import Any

from parsers.content.crc32c import tables
from parsers.content.crc_kernel import crc_of, u32
from parsers.tables.compiled import compiled

__all__ = ["walk_chunks"]

#: The polynomial of zlib's CRC-32 (RFC 1952, section 8) with its bits reversed.
POLYNOMIAL = 0xEDB88320
_TABLE = tables(8, POLYNOMIAL).ravel()
BLOCK, HEADER = 32768, 7
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


@compiled
def walk_chunks(data: Any, limit: int, out: Any, ends: Any, starts: Any, state: Any) -> Any:  # pragma: no cover
    """How many records end in the blocks `data`; -1 where anything is not as it should be.

    `state` holds how many bytes of `out` are used, whether they end in the beginning of a record, and where in `data`
    that begins (below zero: in what was read before); it is brought up to date. `out` gets the records one after
    another, `ends` where each ends there, `starts` where each begins in `data`. A record has at most `limit` bytes.
    """
    used, open_, start = state[0], state[1], state[2]
    count = begin = 0
    for block in range(0, len(data), BLOCK):
        at, stop = block, min(block + BLOCK, len(data))
        while at + HEADER <= stop:
            crc, size, kind = u32(data, at), int(data[at + 4]) | (int(data[at + 5]) << 8), int(data[at + 6])
            if kind == 0 and size == 0 and crc == 0:
                break
            end = at + HEADER + size
            if end > stop or kind < FULL or kind > LAST or (kind <= FIRST) == (open_ == 1):
                return -1
            if crc_of(data, at + 6, end, _TABLE) != crc:
                return -1
            if kind <= FIRST:
                start, open_ = at, 1
            for i in range(at + HEADER, end):
                out[used] = data[i]
                used += 1
            if used - begin > limit:
                return -1
            if kind in (FULL, LAST):
                ends[count], starts[count] = used, start
                count, begin, open_ = count + 1, used, 0
            at = end
        if at < stop and stop - block < BLOCK:
            return -1  # the file ends inside a header, or inside a block that is laid out and not filled
    state[0], state[1], state[2] = used, open_, start
    return count
