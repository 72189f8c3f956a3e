"""The recorder's methods by kind of event: each makes the payload of its kind, or the names of its metrics."""

from __future__ import annotations

import functools
import os
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from eventstream import payloads
from eventstream.chores import Chores
from eventstream.digests import AT_ONCE, ChangedError, State, bytes_of, digest_of, state_of
from eventstream.gan import gan_metrics
from eventstream.segments import SegmentWriter
from eventstream.troubles import Troubles, never_raises
from eventstream.values import plain_text, to_int
from eventstream.vectors import VectorStore

__all__ = ["EventMethods"]


class EventMethods:
    """What a recorder offers besides `log`. None of it raises: see `eventstream.recorder.Recorder`.

    Numbers may be of every type that `log` takes, also those that are still on a device.
    """

    path: Path
    _segments: SegmentWriter
    _troubles: Troubles
    _vectors: VectorStore
    _chores: Chores

    @abstractmethod
    def log(self, step: Any, values: Mapping[str, Any], *, split: str = "", epoch: Any = None) -> None:
        """Record numbers by name."""

    @abstractmethod
    def event(self, kind: str, payload: object, *, step: Any = None, split: str = "", epoch: Any = None) -> None:
        """Record an event of any kind."""

    @abstractmethod
    def _tried(self, convert: Callable[[object], Any], value: object, what: str) -> Any:
        """The converted value, or None where it cannot be."""

    @never_raises
    def losses(
        self,
        step: Any,
        components: Mapping[str, Any],
        *,
        total: Any = None,
        displayed: Any = None,
        split: str = "",
        epoch: Any = None,
    ) -> None:
        """Record the parts of a loss: {name: (raw, weight)} or {name: {raw, weight, weighted, contribution}}.

        `total` is what was optimised, `displayed` what the progress bar shows. Only what is given is written: pass
        `weighted` where the code computes it, so that the product can be checked. A number alone is `raw`.
        """
        self.event("losses", payloads.losses(components, total, displayed), step=step, split=split, epoch=epoch)

    @never_raises
    def curriculum(
        self,
        step: Any,
        phase: str | None = None,
        weights: Mapping[str, Any] | None = None,
        progress: Any = None,
        *,
        epoch: Any = None,
    ) -> None:
        """Record where the curriculum stands: the phase, the weights of the components now, and its progress."""
        given = {"phase": phase, "progress": progress, "weights": weights}
        self.event("curriculum", {key: v for key, v in given.items() if v is not None}, step=step, epoch=epoch)

    @never_raises
    def gan(
        self,
        step: Any,
        *,
        d_real: Any = None,
        d_fake: Any = None,
        d_loss: Any = None,
        g_loss: Any = None,
        grad_norms: Mapping[str, Any] | None = None,
        diversity: Any = None,
        split: str = "",
        epoch: Any = None,
    ) -> None:
        """Record a GAN's game as metrics: `d_loss`, `g_loss`, `d_real`, `d_fake`, `diversity`, `grad_norm/{network}`.

        `d_real` and `d_fake` are the discriminator's mean outputs, `diversity` is of generated samples (a mean
        distance). A mapping tells sub-discriminators apart: `d_real={"mpd.0": ..., "msd.0": ...}` becomes
        `d_real/mpd.0` and so on; give `d_loss` and `g_loss` as the numbers that are optimised. Nothing is added up.
        """
        numbers = {"d_real": d_real, "d_fake": d_fake, "d_loss": d_loss, "g_loss": g_loss}
        metrics = gan_metrics(**numbers, grad_norm=grad_norms, diversity=diversity)
        self.log(step, metrics, split=split, epoch=epoch)

    @never_raises
    def inputs(self, step: Any, stage: str, tensors: Any, status: Mapping[str, str] | None = None) -> None:
        """Record which tensors a stage was given: names, shapes, dtypes and devices, nothing of their content."""
        self.event("inputs", payloads.tensors(stage, tensors, status), step=step)

    @never_raises
    def outputs(self, step: Any, stage: str, tensors: Any, status: Mapping[str, str] | None = None) -> None:
        """Record which tensors a stage gave back, as `inputs` does."""
        self.event("outputs", payloads.tensors(stage, tensors, status), step=step)

    @never_raises
    def data(self, /, step: Any = None, **counts: Any) -> None:
        """Record the use of data so far: `files`, `augmented`, `cache_hits` and other counts."""
        self.event("data", counts, step=step)

    @never_raises
    def resources(self, /, step: Any, **numbers: Any) -> None:
        """Record the use of resources, with the unit in the name: `gpu_memory_mb`, `throughput_samples_s`."""
        self.event("resources", numbers, step=step)

    @never_raises
    def embeddings(
        self,
        step: Any,
        vectors: Any,
        labels: Sequence[Any] | None = None,
        paths: Sequence[Any] | None = None,
        *,
        split: str = "",
    ) -> None:
        """Write embeddings of shape (n, d) as float32 beside the stream, with their labels and paths. Needs pyarrow.

        Each call is a row group of a Parquet file. Vectors of a device are waited for.
        """
        self._segments.check()
        at = self._tried(to_int, step, "step")
        self.event("embeddings", self._vectors.write(at, vectors, labels, paths), step=at, split=split)

    @never_raises
    def sample(
        self,
        step: Any,
        kind: str,
        files: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Record that samples (`audio`, `image`, `text`, ...) of this step stand in `files`."""
        self.event("samples", payloads.sample(self.path, kind, files, metadata), step=step)

    @never_raises
    def checkpoint(self, step: Any, path: str | os.PathLike[str]) -> None:
        """Record a checkpoint that was written, a file or a folder: path, size and SHA-256.

        Up to 8 MiB are hashed in the call; of a larger one the size is recorded at once, and the digest follows as an
        event `digest` when a thread has read it (about a second a GB). `close` waits for it.
        """
        self._segments.check()
        place = Path(path).absolute()
        state = state_of(place)
        payload: dict[str, Any] = {"path": payloads.inside(self.path, place, path), "bytes": bytes_of(state)}
        if payload["bytes"] <= AT_ONCE:
            self.event("checkpoint", {**payload, "sha256": digest_of(place, state)}, step=step)
            return
        self.event("checkpoint", payload, step=step)
        if not self._chores.add(functools.partial(self._digest, step, place, state, payload)):
            self._troubles.say("digest", f"{place}: is one of more checkpoints than can be read meanwhile; no digest")

    def _digest(self, step: Any, place: Path, state: State, payload: Mapping[str, Any]) -> None:
        try:
            known = {**payload, "sha256": digest_of(place, state)}
        except (ChangedError, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            self._troubles.keep("digest", f"{place}: no digest could be made: {reason}")
        else:
            self.event("digest", known, step=step)

    @never_raises
    def note(self, text: str, step: Any = None, level: str = "info") -> None:
        """Record a sentence for whoever reads the run."""
        self.event("note", {"text": plain_text(text), "level": plain_text(level)}, step=step)
