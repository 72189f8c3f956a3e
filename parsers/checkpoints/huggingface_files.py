"""The files of a Hugging Face checkpoint folder by their names: what holds weights, and what stands beside them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Part", "components", "is_checkpoint", "owned", "parts"]

#: Files of the model's weights, of which the first that is there is read: the others hold the same again.
_WEIGHTS = tuple(
    f"{stem}{form}"
    for stem, forms in (
        ("model", (".safetensors", ".safetensors.index.json")),
        ("pytorch_model", (".bin", ".bin.index.json")),
        ("diffusion_pytorch_model", (".safetensors", ".safetensors.index.json", ".bin", ".bin.index.json")),
        ("pytorch_model_fsdp", (".bin",)),
    )
    for form in forms
)
#: Adapters, read beside the model where both are there.
_ADAPTERS = ("adapter_model.safetensors", "adapter_model.bin")
#: accelerate's second and further models; two forms of one are the same weights.
_MORE_MODELS = re.compile(r"(?:pytorch_)?model_(\d{1,3})\.(?:safetensors|bin)(?:\.index\.json)?")
#: What stands beside the weights; the name without its suffix goes before the names of what it holds.
_BESIDE = re.compile(
    r"((?:optimizer|scheduler|sampler|dl_state_dict)(?:_\d{1,3})?\.(?:pt|bin)|rng_state(?:_\d{1,5})?\.pth"
    r"|(?:random_states|custom_checkpoint)_\d{1,5}\.pkl|scaler\.pt|training_args\.bin)"
)
_SHARD = re.compile(
    r"(?P<stem>(?:diffusion_)?(?:pytorch_)?model)-(?P<number>\d{5})-of-(?P<all>\d{5})\.(?P<form>safetensors|bin)"
)
_JSON = ("trainer_state.json", "config.json", "adapter_config.json", "generation_config.json", "model_index.json")
#: What a folder holds beside its components in the layout of diffusers.
_OF_PIPELINES = ("model_index.json", "optimizer.bin", "optimizer.pt", "random_states_0.pkl")


@dataclass(frozen=True, slots=True)
class Part:
    """A file of the folder, and what goes before the names of all that it holds."""

    file: Path
    prefix: str = ""


def parts(folder: Path) -> list[Part]:
    """The files to read: the weights (one form of them), adapters, further models, then all that stands beside.

    Shards that no index names are parts of their own.
    """
    names = _names(folder)
    found = [Part(folder / name) for name in _weights(names)]
    further = sorted((name for name in names if _MORE_MODELS.fullmatch(name)), key=lambda name: ("bin" in name, name))
    models = {f"model_{int(match[1])}.": name for name in reversed(further) if (match := _MORE_MODELS.fullmatch(name))}
    found += [Part(folder / name, prefix) for prefix, name in sorted(models.items())]
    return found + [Part(folder / name, f"{name.partition('.')[0]}.") for name in names if _BESIDE.fullmatch(name)]


def components(folder: Path) -> list[Path]:
    """Folders of the parts of a pipeline (`unet`, `unet_ema`, `vae`); none where the folder has weights itself."""
    names = _names(folder)
    if _weights(names) or not any(name in names for name in _OF_PIPELINES):
        return []
    below = (folder / name for name in names)
    return [one for one in below if one.is_dir() and not one.is_symlink() and _weights(_names(one))]


def is_checkpoint(folder: Path) -> bool:
    """Whether the folder is one save: it holds weights under a name that Hugging Face's libraries give, or components.

    >>> is_checkpoint(Path("no/such/folder"))
    False
    """
    return bool(_weights(_names(folder)) or components(folder))


def owned(folder: Path) -> set[str]:
    """Names in the folder that belong to its save, all forms of the weights and all shards among them."""
    known = {*_WEIGHTS, *_ADAPTERS, *_JSON, *(one.name for one in components(folder))}
    patterns = (_MORE_MODELS, _BESIDE, _SHARD)
    return {name for name in _names(folder) if name in known or any(p.fullmatch(name) for p in patterns)}


def missing_shards(names: Iterable[str]) -> list[str]:
    """Shards that the names of others announce (`model-00001-of-00003.safetensors`) and that are not there.

    >>> missing_shards(["model-00001-of-00002.safetensors", "config.json"])
    ['model-00002-of-00002.safetensors']
    """
    there = set(names)
    matches = [match for match in map(_SHARD.fullmatch, sorted(there)) if match]
    wanted = {
        f"{match['stem']}-{number:05}-of-{match['all']}.{match['form']}"
        for match in matches
        for number in range(1, min(int(match["all"]), 10_000) + 1)
    }
    return sorted(wanted - there)


def _weights(names: list[str]) -> list[str]:
    there = set(names)
    model = [name for name in _WEIGHTS if name in there][:1]
    if not model:
        model = [name for name in names if _SHARD.fullmatch(name)]
    adapter = [name for name in _ADAPTERS if name in there][:1]
    return model + adapter


def _names(folder: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in folder.iterdir())
    except OSError:  # no folder, or one that may not be listed
        return []
