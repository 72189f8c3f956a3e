"""What the name of a checkpoint tells: step, epoch, rank, whether it is the best or the last, and of which series."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["Told", "folder_told", "told_by"]

_SUFFIX = re.compile(r"(?:\.(?:index\.json|safetensors|pth|pt|ckpt|chkpt|bin|npz|th|tar|model|checkpoint|weights))+$")
#: Words that name no series: every checkpoint may be called so.
_GENERIC = frozenset(
    re.split(
        r"\s+",
        "model models checkpoint checkpoints ckpt ckpts chkpt weights weight net network networks state states dict "
        "save saved saves snapshot pytorch torch params param parameters diffusion adapter module global rl train "
        "training tmp and val valid value step steps epoch epochs iter iters optim rng",
    )
)
_LABELS = {
    **dict.fromkeys(("best", "topk"), "best"),
    **dict.fromkeys(("last", "latest", "newest", "current"), "last"),
    **dict.fromkeys(("final", "finished", "end"), "final"),
    **dict.fromkeys(("init", "initial", "start"), "init"),
}
#: An average of weights is a series beside that of the weights.
_AVERAGES = frozenset(("ema", "swa", "average", "averaged", "avg"))
_MANY = {"": 1, "k": 1_000, "m": 1_000_000}


def _compiled(*patterns: str) -> tuple[re.Pattern[str], ...]:
    return tuple(re.compile(pattern, re.IGNORECASE) for pattern in patterns)


#: A number with what stands around it: letters before it belong to a word, digits after it to another number.
_COUNT = r"0*(?P<count>\d{1,15})(?P<many>[km]?)"
_START, _END = r"(?<![a-z])", r"(?![a-z0-9])"
_STEPS = r"(?:global_?|train_?)?(?:steps?|iter(?:ation)?s?|updates?|it)"
_EPOCHS = r"(?:epochs?|ep)"
_METRICS = r"(?:loss|acc(?:uracy)?|wer|cer|eer|mse|mae|psnr|ssim|fid|bleu|f1|score|auc|m?ap|m?iou|dice|ppl|mos|lr)"
#: Words before a number that counts something other than training; the two are one word.
(_OTHER_COUNTS,) = _compiled(
    r"(?<![a-z])(fold|seed|speaker|spk|layers?|version|part|shard|phase|stage|exp|run|trial|worker|gpu|client|split|task"
    r"|size|dim)[-_ .=]?(\d+)(?![a-z0-9])"
)
#: The ranks of a model that is cut in parts (Megatron, DeepSpeed): each part is a series of its own, and no copy.
(_PARTITION,) = _compiled(
    r"(?<![a-z])(?P<of>mp|tp|pp|ep|zero)(?:_(?:dp|pp|tp|mp))*_rank[-_]?(?P<part>\d+)(?:_(?P<stage>\d{3}))?(?!\d)"
)
_NOISE = _compiled(
    # Lightning's mark of a second file of the same name, a shard's number, a date with or without its time.
    r"-v\d{1,3}$",
    r"-\d{5}-of-\d{5}$",
    r"(?<!\d)20\d\d[-_]?[01]\d[-_]?[0-3]\d(?:[-_T +]\d\d[-_:]?\d\d(?:[-_:]?\d\d(?:\+\d\d)?)?)?(?!\d)",
)
(_RANK,) = _compiled(rf"{_START}(?:(?:dp|local|global)_)*rank[-_=]?0*(?P<count>\d{{1,6}})(?!\d)")
#: An epoch and the step after it: GPT-SoVITS, fairseq.
_PAIRS = _compiled(
    rf"{_START}e(?P<epoch>\d{{1,9}})[-_]s(?P<step>\d{{1,15}}){_END}",
    r"^checkpoint_(?P<epoch>\d{1,9})_(?P<step>\d{1,15})$",
)
_STEP = _compiled(rf"{_START}{_STEPS}[-_= ]?{_COUNT}{_END}", rf"(?<![a-z\d.]){_COUNT}[-_ ]?{_STEPS}{_END}")
_EPOCH = _compiled(rf"{_START}{_EPOCHS}[-_= ]?{_COUNT}{_END}", rf"(?<![a-z\d.]){_COUNT}[-_ ]?{_EPOCHS}{_END}")
_MEASURED = _compiled(
    r"(?<![a-z])[a-z/]+=[-+]?\d+\.\d+(?:e[-+]?\d+)?(?![\d.])",
    rf"{_START}{_METRICS}[-_= ]?\d+(?:\.\d+)?(?![\d.])",
    r"(?<![\d.a-z])[-+]?\d+\.\d+(?:e[-+]?\d+)?(?![\d.])",
)
_BARE = _compiled(
    rf"(?:^|(?<=[-_. ])){_COUNT}(?=$|[-_. ])",
    rf"{_START}(?:model|checkpoint|ckpt|weights|net|unet|snapshot|state|save|ema|g|d|gen|disc){_COUNT}(?=$|[-_. ])",
)
(_PLAIN_STEP,) = _compiled(r"(?:.*[-_.])?(?:checkpoint|ckpt)-0*(\d{1,15})")


@dataclass(frozen=True, slots=True)
class Told:
    """What a name tells; `number` is a counter of which nothing says what it counts, `words` what is left of it."""

    step: int | None = None
    epoch: float | None = None
    number: int | None = None
    rank: int | None = None
    label: str = ""
    words: tuple[str, ...] = ()

    @property
    def counts(self) -> bool:
        """Whether it tells how far training was."""
        return self.step is not None or self.epoch is not None or self.number is not None


def told_by(name: str) -> Told:
    """What the name of a file tells.

    A number behind a word for steps or epochs is one; of a number that stands alone (`model_0001000`, `ckpt-3`) nothing
    says which: it is `number`. Decimals, dates and what is given as `name=number` are measurements and settings.

    >>> told_by("epoch=3-step=1200.ckpt")
    Told(step=1200, epoch=3.0, number=None, rank=None, label='', words=())
    >>> told_by("G_1000.pth").number, told_by("G_1000.pth").words, told_by("best_model.pth").label
    (1000, ('g',), 'best')
    """
    rest = _PARTITION.sub(_part, _SUFFIX.sub("", name))
    rest = _OTHER_COUNTS.sub(r"\1\2", rest)
    for pattern in _NOISE:
        rest = pattern.sub(" ", rest)
    rest, rank = _taken(rest, (_RANK,))
    step, epoch = None, None
    for pattern in _PAIRS:
        if match := pattern.search(rest):
            epoch, step = int(match["epoch"]), int(match["step"])
            rest = _without(rest, match)
    if step is None:
        rest, step = _taken(rest, _STEP)
    if epoch is None:
        rest, epoch = _taken(rest, _EPOCH)
    for pattern in _MEASURED:
        rest = pattern.sub(" ", rest)
    rest, number = _bare(rest)
    words = _words(rest)
    label = next((_LABELS[word] for word in words if word in _LABELS), "")
    label = label or ("ema" if any(word in _AVERAGES for word in words) else "")
    left = tuple(word for word in words if word not in _GENERIC and word not in _LABELS)
    return Told(step, None if epoch is None else float(epoch), number, rank, label, left)


def folder_told(name: str) -> Told | None:
    """What the name of a folder tells of the checkpoints in it; None where it is a name and no counter.

    Only names that are nothing but a counter or a rank count: `step2_finetune` and `exp-3` say what was trained. The
    number of `checkpoint-500` is a step, as Hugging Face's Trainer has it.

    >>> folder_told("checkpoint-500").step, folder_told("iter_0001000").step, folder_told("exp-3")
    (500, 1000, None)
    """
    told = told_by(name)
    if told.words or told.label or not (told.counts or told.rank is not None):
        return None
    plain = _PLAIN_STEP.fullmatch(name)
    return Told(int(plain[1]), rank=told.rank) if plain else told


def _taken(rest: str, patterns: tuple[re.Pattern[str], ...]) -> tuple[str, int | None]:
    """The number that the first fitting pattern finds, and the name without it."""
    for pattern in patterns:
        if match := pattern.search(rest):
            return _without(rest, match), _number(match)
    return rest, None


def _part(match: re.Match[str]) -> str:
    return f"{match['of']}rank{match['part']}" + (f"x{match['stage']}" if match["stage"] else "")


def _bare(rest: str) -> tuple[str, int | None]:
    """A number that stands alone at the name's begin, or behind which only words for checkpoints stand."""
    for pattern in _BARE:
        for match in reversed(list(pattern.finditer(rest))):
            behind = _words(rest[match.end() :])
            if match.start() == 0 or all(word in _GENERIC or word in _LABELS or word in _AVERAGES for word in behind):
                kept = rest[: match.start("count")].rstrip("0")
                return f"{kept} {rest[match.end() :]}", _number(match)
    return rest, None


def _number(match: re.Match[str]) -> int:
    many = match.groupdict().get("many") or ""
    return int(match["count"]) * _MANY[many.lower()]


def _without(rest: str, match: re.Match[str]) -> str:
    return f"{rest[: match.start()]} {rest[match.end() :]}"


def _words(rest: str) -> list[str]:
    return [word for word in re.split(r"[-_. =,+()\[\]]+", rest.lower()) if word]
