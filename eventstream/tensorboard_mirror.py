"""`TensorBoardMirror`: the numbers of a run as TensorBoard event files, through the `tensorboard` package."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from eventstream.mirrors import About, full_tag, numbers
from eventstream.optional import need

__all__ = ["TensorBoardMirror"]

#: Events that may wait for the thread that writes them: a burst of records waits for no disk.
_QUEUE = 1000


class TensorBoardMirror:
    """Writes every number of a run as a scalar of TensorBoard, into an event file in `folder`.

    A mirror of `Recorder`, and what `aftertrain convert` writes with. Tags are the names recorded, with the split
    before them (`eval/loss`) unless they say it; numbers made of events go by their names in the stream
    (`losses/kd/raw`). TensorBoard keeps 32-bit floats: NaN and infinities stay, numbers beyond 3e38 become infinite.
    Numbers without a step are counted, tag by tag. The configuration is the text `config`, as JSON; notes are texts.

    The file is written by a thread, which empties its buffers every `flush_s` seconds (30): a killed training loses at
    most so much of the mirror. A folder that holds event files already gets another one, which readers take as the
    next attempt. Raises MissingDependencyError without the package tensorboard.

    >>> import tempfile
    >>> from eventstream.recorder import Recorder
    >>> folder = Path(tempfile.mkdtemp())
    >>> with Recorder(folder / "run", mirrors=[TensorBoardMirror(folder / "board")]) as rec:
    ...     rec.log(1, {"loss": 2.5}, split="train")
    >>> [path.name.split(".")[:3] for path in (folder / "board").iterdir()]
    [['events', 'out', 'tfevents']]
    """

    def __init__(self, folder: str | os.PathLike[str], *, flush_s: float = 30.0) -> None:
        if not flush_s > 0:
            raise ValueError(f"flush_s must be a positive number of seconds, got {flush_s!r}")
        self.folder = Path(folder).absolute()
        self._flush_s = flush_s
        wanted = {"feature": "writing TensorBoard events", "extra": "tensorboard"}
        self._writers = need("tensorboard.summary.writer.event_file_writer", **wanted)
        self._events = need("tensorboard.compat.proto.event_pb2", **wanted)
        self._summaries = need("tensorboard.compat.proto.summary_pb2", **wanted)
        self._tensors = need("tensorboard.compat.proto.tensor_pb2", **wanted)
        #: How many numbers without a step each tag had.
        self._counted: dict[str, int] = {}

    @cached_property
    def _writer(self) -> Any:
        return self._writers.EventFileWriter(str(self.folder), _QUEUE, self._flush_s)

    def begin(self, _about: About) -> None:
        """Open the file, so that a folder that cannot be written is said at the start."""
        self._writer  # noqa: B018 - made when first asked for

    def write(self, record: Mapping[str, Any]) -> None:
        """Take one record of the stream."""
        kind, split, payload = record["kind"], record.get("split", ""), record.get("payload")
        self.add(record["step"], record["time"], [(full_tag(name, split), value) for name, value in numbers(record)])
        if kind == "config":
            self._text(record, "config", json.dumps(payload, ensure_ascii=False))
        elif kind == "note" and isinstance(payload, dict):
            self._text(record, "note", str(payload.get("text", "")))

    def add(self, step: int | None, time_s: float, pairs: Iterable[tuple[str, float]]) -> None:
        """Write numbers of one step under their tags, one event for all of them."""
        value = self._summaries.Summary.Value
        if step is not None:
            found = [value(tag=tag, simple_value=number) for tag, number in pairs]
            if found:
                self._event(step, time_s, found)
            return
        for tag, number in pairs:
            count = self._counted.get(tag, 0)
            self._counted[tag] = count + 1
            self._event(count, time_s, [value(tag=tag, simple_value=number)])

    def _text(self, record: Mapping[str, Any], tag: str, text: str) -> None:
        """A text as the text plugin shows it."""
        # 7 is DT_STRING
        tensor = self._tensors.TensorProto(dtype=7, string_val=[text.encode()])
        plugin = self._summaries.SummaryMetadata.PluginData(plugin_name="text")
        about = self._summaries.SummaryMetadata(plugin_data=plugin)
        value = self._summaries.Summary.Value(tag=f"{tag}/text_summary", metadata=about, tensor=tensor)
        self._event(record["step"] or 0, record["time"], [value])

    def _event(self, step: int, time_s: float, values: list[Any]) -> None:
        summary = self._summaries.Summary(value=values)
        self._writer.add_event(self._events.Event(wall_time=time_s, step=step, summary=summary))

    def close(self) -> None:
        """Write what waits and close the file."""
        if "_writer" in self.__dict__:
            self._writer.close()
            del self.__dict__["_writer"]
