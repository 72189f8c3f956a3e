"""What each tensor of a checkpoint is for, told by the names that frameworks give: model, average, optimizer, other."""

from __future__ import annotations

import re
from dataclasses import replace

from parsers.checkpoints.checkpoint import Checkpoint
from parsers.checkpoints.tensors import Role, Tensor

__all__ = ["with_roles"]

_OTHER = re.compile(
    r"(^|\.)(rng_states?|random_states?|cuda_rng_state|generator|lr_schedulers?|scheduler|loops|scaler)\."
)
_OPTIMIZER = re.compile(r"(^|\.)(optimizers?|optimizer_states?|optim|optimizer_state_dict)(\.\d+)?\.")
_EMA = re.compile(r"(^|[._])(ema|ema_model|model_ema|ema_state_dict|averaged?_model|swa_model)[._]", re.IGNORECASE)
#: What wraps a model's own names, outermost first; several may stand before one name.
_WRAPPERS = re.compile(
    r"^(state_dict|model_state_dict|model_state|model|net|network|module|_orig_mod|_fsdp_wrapped_module|params|weights)\."
)


def with_roles(checkpoint: Checkpoint) -> Checkpoint:
    """The same checkpoint, its tensors with the role and the parameter that their names tell."""
    return checkpoint.but(tensors=tuple(_named(tensor) for tensor in checkpoint.tensors))


def _named(tensor: Tensor) -> Tensor:
    role = _role(tensor.name)
    return replace(tensor, role=role, parameter=_parameter(tensor.name) if role in ("weights", "ema") else "")


def _role(name: str) -> Role:
    if _OPTIMIZER.search(name):
        return "optimizer"
    if _OTHER.search(name):
        return "other"
    return "ema" if _EMA.search(name) else "weights"


def _parameter(name: str) -> str:
    """The name within the model: what wraps it taken off, as long as something is left."""
    bare = _EMA.sub(lambda match: match[1], name)
    while (shorter := _WRAPPERS.sub("", bare)) != bare:
        bare = shorter
    return bare
