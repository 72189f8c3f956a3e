"""An opened checkpoint: its tensors, what else it says, and what of it could not or must not be read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from parsers.checkpoints.mapped import MappedFiles
from parsers.checkpoints.tensors import Role, Tensor

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["MOST_VALUES", "Checkpoint", "Damage", "UnsafeCall"]

#: Most entries of `Checkpoint.values`: the parameter groups of a large model have tens of thousands.
MOST_VALUES = 100_000


@dataclass(frozen=True, slots=True)
class Damage:
    """A part of a checkpoint that could not be read: the file, where in it (byte, entry, key), and why.

    `unsupported` says that nothing is wrong with the file: it holds what is not read here (elements of four bits,
    arrays of Python objects), or is a link out of the folder, which is not followed.
    """

    file: Path
    where: str
    reason: str
    unsupported: bool = False


@dataclass(frozen=True, slots=True)
class UnsafeCall:
    """What a pickle would have called, had it been opened the ordinary way; here nothing was called.

    `name` is the dotted name of the callable (`posix.system`), `arguments` a shortened text of what it would have been
    given (empty where it was only named and not called), `member` the entry of a zip or the number of the pickle in a
    file of several. `risk` is `dangerous` where the callable is known to run code, or to reach files, the network or
    other modules, and `unknown` for what is on no list: a class of a library, as a rule, whose import runs its module.
    """

    file: Path
    member: str
    name: str
    arguments: str
    risk: Literal["dangerous", "unknown"] = "dangerous"


@dataclass(frozen=True)
class Checkpoint:
    """What one checkpoint holds. Tensors are mapped, not loaded: use it in a `with` block, or `close` it.

    `values` are the numbers, texts and truths beside the tensors by their dotted path (`global_step`,
    `optimizer.param_groups.0.lr`), at most `MOST_VALUES` of them. `files` are all that it is made of.
    """

    path: Path
    format: str
    tensors: tuple[Tensor, ...]
    values: Mapping[str, float | int | str | bool | None] = field(default_factory=dict)
    unsafe: tuple[UnsafeCall, ...] = ()
    damage: tuple[Damage, ...] = ()
    files: tuple[Path, ...] = ()
    step: int | None = None
    epoch: float | None = None
    mapped: MappedFiles = field(default_factory=MappedFiles, repr=False, compare=False)

    def of_role(self, *roles: Role) -> tuple[Tensor, ...]:
        """The tensors of these roles, in the checkpoint's order."""
        return tuple(tensor for tensor in self.tensors if tensor.role in roles)

    def array(self, tensor: Tensor) -> NDArray[np.generic]:
        """The stored values as they are, in the type `DTYPES[tensor.dtype].raw`: a read-only view of the mapped file.

        The shape is the tensor's (for a sparse tensor: 1-D, the stored values). A tensor that is deflated or lies in
        pieces is read into memory. Raises `InputError` where the bytes are not there any more.
        """
        return self.mapped.array(tensor)

    def release(self, tensor: Tensor) -> None:
        """Give the memory that pages of this tensor take back to the system; later reads bring them again."""
        self.mapped.release(tensor)

    def close(self) -> None:
        """Unmap all files."""
        self.mapped.close()

    def but(self, **changes: Any) -> Checkpoint:
        """The same checkpoint with other fields."""
        return replace(self, **changes)

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.tensors)

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
