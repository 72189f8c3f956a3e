"""What stands in for torch's callables in a pickle: each becomes a description of a tensor, or a plain value.

Source of what they are given: the `_rebuild_*` functions of `torch/_utils.py`, which torch keeps as its file format.
"""

from __future__ import annotations

from typing import Any

from parsers.checkpoints.inert_builders import STANDARD, records
from parsers.checkpoints.inert_objects import MisuseError, Named, PickledStorage, PickledTensor, Record
from parsers.checkpoints.numpy_objects import NUMPY, NumpyArray
from parsers.checkpoints.pickle_machine import Builders
from parsers.checkpoints.shapes import number_of, size_of
from parsers.checkpoints.tensors import DTYPES

__all__ = ["STORAGES", "TORCH", "dtype_of"]

#: Element types of the storages with a type of their own.
STORAGES: dict[str, str | None] = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexDoubleStorage": "complex128",
    "ComplexFloatStorage": "complex64",
    "QInt8Storage": "qint8",
    "QUInt8Storage": "quint8",
    "QInt32Storage": "qint32",
    "QUInt4x2Storage": "quint4x2",
    "QUInt2x4Storage": "quint2x4",
    "UntypedStorage": None,
    "TypedStorage": None,
}


def dtype_of(value: Any) -> str:
    """Name of an element type, `float32` of `torch.float32`."""
    if not isinstance(value, Named) or not value.name.startswith("torch."):
        raise MisuseError("no element type")
    return value.name.removeprefix("torch.")


def _plain(args: tuple[Any, ...]) -> PickledTensor:
    """`_rebuild_tensor`, `_v2`: storage, offset, size, stride, and what does not matter to values."""
    storage = _storage(args)
    if storage.dtype is None:
        raise MisuseError("a storage without an element type")
    return _view(storage, storage.dtype, args)


def _typed(args: tuple[Any, ...]) -> PickledTensor:
    """`_rebuild_tensor_v3`: as before, and the element type."""
    if len(args) < 7:
        raise MisuseError("an argument is missing")
    return _view(_storage(args), dtype_of(args[6]), args)


def _storage(args: tuple[Any, ...]) -> PickledStorage:
    if len(args) < 4 or not isinstance(args[0], PickledStorage):
        raise MisuseError("no storage, offset, size and stride")
    return args[0]


def _view(storage: PickledStorage, dtype: str, args: tuple[Any, ...]) -> PickledTensor:
    shape, strides = size_of(args[2]), size_of(args[3])
    if len(shape) != len(strides):
        raise MisuseError("sizes and strides of different number")
    return PickledTensor(dtype, shape, storage, number_of(args[1]), strides)


def _quantised(args: tuple[Any, ...]) -> PickledTensor:
    """`_rebuild_qtensor`: one scale and zero point, or those of each channel, which become tensors beside it."""
    tensor = _plain(args)
    scheme = args[4] if len(args) > 4 else None
    if not isinstance(scheme, tuple) or not scheme or not isinstance(scheme[0], Named):
        raise MisuseError("no scheme of quantisation")
    if scheme[0].name == "torch.per_tensor_affine" and len(scheme) == 3:
        scale, zero = scheme[1:]
        if isinstance(scale, int | float) and isinstance(zero, int):
            tensor.scale, tensor.zero_point = float(scale), zero
            return tensor
    elif len(scheme) == 4:
        named = {"scales": scheme[1], "zero_points": scheme[2]}
        tensor.parts = {name: part for name, part in named.items() if isinstance(part, PickledTensor)}
        return tensor
    raise MisuseError("no scheme of quantisation that is known")


#: What the tensors of a sparse layout are, in the order in which they are stored; the values are their last.
_SPARSE = {
    "torch.sparse_coo": ("indices",),
    "torch.sparse_csr": ("crow_indices", "col_indices"),
    "torch.sparse_bsr": ("crow_indices", "col_indices"),
    "torch.sparse_csc": ("ccol_indices", "row_indices"),
    "torch.sparse_bsc": ("ccol_indices", "row_indices"),
}


def _sparse(args: tuple[Any, ...]) -> PickledTensor:
    layout = args[0].name if args and isinstance(args[0], Named) else args[0] if args else None
    names = _SPARSE.get(layout) if isinstance(layout, str) else None
    data = args[1] if len(args) > 1 else None
    if names is None or not isinstance(data, tuple) or len(data) < len(names) + 2:
        raise MisuseError("no layout that is known, with its tensors and size")
    values, shape = data[len(names)], size_of(data[len(names) + 1])
    parts = dict(zip(names, data, strict=False))
    if not all(isinstance(part, PickledTensor) for part in (values, *parts.values())):
        raise MisuseError("indices or values that are no tensors")
    stored = 1
    for length in values.shape:
        stored *= length
    tensor = PickledTensor(values.dtype, shape, values.storage, values.offset, layout="sparse", stored=stored)
    tensor.strides = values.strides if len(values.shape) == 1 else None
    tensor.parts = parts
    return tensor


def _without_values(args: tuple[Any, ...]) -> PickledTensor:
    """`_rebuild_meta_tensor_no_storage`: element type and size."""
    if len(args) < 2:
        raise MisuseError("no element type and size")
    return PickledTensor(dtype_of(args[0]), size_of(args[1]), None, layout="meta", stored=0)


def _wrapper(args: tuple[Any, ...]) -> PickledTensor:
    return _without_values(args[1:])


def _first(args: tuple[Any, ...]) -> Any:
    """A parameter is the tensor it is made of; lists of TorchScript are the lists."""
    return args[0] if args else Record("torch.nn.parameter.Parameter")


def _moved(args: tuple[Any, ...]) -> Any:
    """A tensor of a device without storages of its own, saved through memory (NumPy array or tensor)."""
    if not args or not isinstance(args[0], NumpyArray | PickledTensor):
        raise MisuseError("no array or tensor")
    return args[0]


def _subclass(args: tuple[Any, ...]) -> Any:
    """`_rebuild_from_type_v2`: a function that makes the tensor, its class, the function's arguments, attributes."""
    if len(args) < 3 or not isinstance(args[0], Named) or not isinstance(args[2], tuple):
        return Record("torch.Tensor", args)
    builder = _REBUILD.get(args[0].name)
    made = Record(args[0].name, args[2]) if builder is None else builder(args[2])
    if isinstance(made, PickledTensor) and len(args) > 3 and made.layout == "meta":
        return _unwrapped(made, args[3])
    return made


def _unwrapped(outer: PickledTensor, state: Any) -> PickledTensor:
    """A tensor that wraps others: with the others as its parts, or the shard that this process holds of a `DTensor`."""
    record = Record("state")
    record.build(state)
    inner = {str(name): part for name, part in record.attributes().items() if isinstance(part, PickledTensor)}
    if list(inner) == ["_local_tensor"]:
        return inner["_local_tensor"]
    outer.parts = inner
    return outer


def _nested(args: tuple[Any, ...]) -> Record:
    record = Record("torch.nested")
    record.build(dict(zip(("buffer", "sizes", "strides", "offsets"), args, strict=False)))
    return record


def _size(args: tuple[Any, ...]) -> tuple[int, ...]:
    return size_of(args[0]) if args else ()


def _device(args: tuple[Any, ...]) -> str:
    return ":".join(str(part) for part in args if isinstance(part, str | int))[:100]


def _layout(args: tuple[Any, ...]) -> str:
    if not args or not isinstance(args[0], str):
        raise MisuseError("no name of a layout")
    return args[0]


_REBUILD: Builders = {
    "torch._utils._rebuild_tensor": _plain,
    "torch._utils._rebuild_tensor_v2": _plain,
    "torch._utils._rebuild_tensor_v3": _typed,
    "torch._utils._rebuild_qtensor": _quantised,
    "torch._utils._rebuild_sparse_tensor": _sparse,
    "torch._utils._rebuild_sparse_csr_tensor": _sparse,
    "torch._utils._rebuild_meta_tensor_no_storage": _without_values,
    "torch._utils._rebuild_wrapper_subclass": _wrapper,
    "torch._utils._rebuild_nested_tensor": _nested,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch._utils._rebuild_device_tensor_from_numpy": _moved,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _moved,
    "torch._utils._rebuild_xla_tensor": _moved,
    "torch.nn.parameter.Parameter": _first,
    "torch.nn.parameter.Buffer": _first,
}
_NAMES = """
    torch.Tensor torch.strided torch.sparse_coo torch.sparse_csr torch.sparse_csc torch.sparse_bsr torch.sparse_bsc
    torch.contiguous_format torch.channels_last torch.preserve_format
    torch.per_tensor_affine torch.per_tensor_symmetric torch.per_channel_affine torch.per_channel_symmetric
    torch.per_channel_affine_float_qparams
    torch.quint4x2 torch.quint2x4 torch.bits8 torch.bits16 torch.float4_e2m1fn_x2
    torch.distributed.tensor.DTensor torch.distributed.tensor._dtensor_spec.DTensorSpec
    torch.distributed.tensor._dtensor_spec.TensorMeta torch.distributed.tensor._dtensor_spec.ShardOrderEntry
    torch.distributed.tensor.placement_types.Shard torch.distributed.tensor.placement_types.Replicate
    torch.distributed.tensor.placement_types.Partial torch.distributed.tensor.placement_types._StridedShard
    torch.distributed.device_mesh.DeviceMesh torch.distributed._mesh_layout._MeshLayout
    torch.distributed._mesh_layout._FlatLayout
"""

#: All that is known in checkpoints of torch, by dotted name.
TORCH: Builders = {
    **STANDARD,
    **NUMPY,
    **_REBUILD,
    **records(_NAMES),
    **records(" ".join(f"torch.{name}" for name in DTYPES)),
    **records(" ".join(f"torch.{part}int{bits}" for part in ("", "u") for bits in range(1, 8))),
    **records(" ".join(f"torch.{where}{name}" for where in ("", "cuda.", "storage.") for name in STORAGES)),
    "torch._tensor._rebuild_from_type_v2": _subclass,
    "torch._tensor._rebuild_from_type": _subclass,
    "torch.Size": _size,
    "torch.device": _device,
    "torch.serialization._get_layout": _layout,
    "torch.torch_version.TorchVersion": _first,
    **{
        f"torch.jit._pickle.{name}": _first
        for name in ("build_intlist", "build_doublelist", "build_boollist", "build_tensorlist", "restore_type_tag")
    },
}
