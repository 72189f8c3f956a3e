"""What a training script needs of a recorder: `aftertrain.Recorder` has it, and so has the one that only listens."""

from __future__ import annotations

from typing import Any, Protocol

__all__ = ["Listener", "Recording"]


class Recording(Protocol):
    """The calls that the scripts of this folder make."""

    def log(self, step: int, values: dict[str, float], *, split: str = "") -> Any: ...
    def losses(self, step: int, components: dict[str, Any], *, total: float, displayed: float) -> Any: ...
    def curriculum(self, step: int, *, phase: str, weights: dict[str, float], progress: float) -> Any: ...
    def inputs(self, step: int, stage: str, tensors: dict[str, Any]) -> Any: ...
    def data(self, step: int, **counts: Any) -> Any: ...
    def resources(self, step: int, **amounts: float) -> Any: ...
    def embeddings(self, step: int, vectors: Any, labels: Any = None, paths: Any = None) -> Any: ...
    def sample(self, step: int, kind: str, files: Any, metadata: Any = None) -> Any: ...
    def checkpoint(self, step: int, path: Any) -> Any: ...


class Listener:
    """Keeps every call in `calls` as (method, positional, named) and writes nothing: for tests of the scripts.

    >>> listener = Listener()
    >>> listener.log(1, {"loss": 2.0}, split="train")
    >>> listener.calls
    [('log', (1, {'loss': 2.0}), {'split': 'train'})]
    """

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def __getattr__(self, method: str) -> Any:
        if method.startswith("_"):
            raise AttributeError(method)

        def keep(*positional: Any, **named: Any) -> None:
            self.calls.append((method, positional, named))

        return keep

    def series(self, metric: str, split: str = "train") -> dict[int, float]:
        """Step -> value of one logged metric."""
        return {
            positional[0]: positional[1][metric]
            for method, positional, named in self.calls
            if method == "log" and named.get("split", "") == split and metric in positional[1]
        }
