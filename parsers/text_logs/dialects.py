"""The table of dialects: how the well-known programs print their numbers, one entry a dialect, the specific first.

Those of language models and of speech stand in files of their own.
The forms are those of the programs' own format strings and of the lines that real logs hold.
"""

from __future__ import annotations

from parsers.text_logs.dialect import INTEGER, NUMBER, Dialect, Pattern
from parsers.text_logs.dialect_toml import from_toml
from parsers.text_logs.language_dialects import FAIRSEQ, LLMC, MARIAN, MEGATRON, MODDED, NANOCHAT, NANOGPT, OLMO
from parsers.text_logs.speech_dialects import AASIST, COQUI, ESPNET, HIFIGAN, KALDI, SPEAKER, SPEECHBRAIN, VITS

__all__ = ["DIALECTS", "from_toml"]

_N, _I = NUMBER, INTEGER
_STEP, _EPOCH = rf"(?P<step>{_I})", rf"(?P<epoch>{_I})"
PIX2PIX = Dialect(
    "pix2pix",
    "pix2pix and CycleGAN loss_log.txt",
    (
        Pattern(
            ", iters: ",
            rf"^\(epoch: {_EPOCH}, iters: {_STEP}, time: (?P<time_per_image>{_N}), data: (?P<data>{_N})\) "
            r"(?P<pairs>.*[0-9fn]) ?$",
            "colon",
            opening=rf"^\(epoch: {_I}, iters: {_I}",
        ),
        Pattern(" Training Loss (", r"^=+ Training Loss \((?P<text>[^)]*)\) =+$", event="start"),
    ),
    names={"time_per_image": "time"},
    metrics={"time": "time_per_image_s", "data": "data_time_s"},
    per_epoch=True,
)
_TOOK, _COUNTS = r"[0-9]+s [0-9]+[mu]?s", r"^ *([0-9]+)/([0-9]+) "
KERAS = Dialect(
    "keras",
    "Keras progress lines",
    (
        Pattern("Epoch ", rf"^Epoch {_EPOCH}/{_I}$"),
        Pattern(
            "━ ",
            rf"^{_I}/{_I} ━+ {_TOOK}/[a-z]+ - (?P<pairs>.*)$",
            "phrases",
            opening=rf"^{_I}/{_I} ━+ [0-9]+s ",
            redrawn=_COUNTS,
        ),
        Pattern(
            "=] - ",
            rf"^{_I}/{_I} \[=+\] - [0-9]+s(?: [0-9]+[mu]?s/[a-z]+)? - (?P<pairs>.*)$",
            "phrases",
            opening=rf"^{_I}/{_I} \[=+\] - [0-9]+s",
        ),
        Pattern("s - ", rf"^(?:{_I}/{_I})? - [0-9]+s - (?:[0-9]+[mu]?s/[a-z]+ - )?(?P<pairs>.*: .*)$", "phrases"),
    ),
    carry=("epoch",),
)
#: With `unit_scale` counts are shortened to three digits and a letter.
_SIZE = r"[0-9.]+[kMGTPEZY]?"
TQDM = Dialect(
    "tqdm",
    "tqdm progress bars with numbers behind them",
    (
        Pattern(
            "%|",
            rf"^(?:[^|%]*?(?i:epoch|ep)[ :=#]*{_EPOCH}[^|%]*?)?[^|%]*?[0-9]+%\|[^|]*\| *(?P<step>{_SIZE})/{_SIZE} "
            r"\[[^,\]]*, *[^,\]]*, *(?P<pairs>[^\]]*)\]",
            "equals",
            opening=rf"%\|[^|]*\| *{_SIZE}/{_SIZE} \[[^\]]*[A-Za-z]=",
            redrawn=rf"%\|[^|]*\| *({_SIZE}/{_SIZE}) \[",
        ),
    ),
    carry=("epoch",),
    per_epoch=True,
    fallback=True,
)

#: In the order tried where two fit equally well.
DIALECTS: tuple[Dialect, ...] = (
    MEGATRON, LLMC, NANOGPT, MODDED, NANOCHAT, OLMO, FAIRSEQ, MARIAN, COQUI, VITS, HIFIGAN, SPEECHBRAIN, ESPNET, KALDI,
    PIX2PIX, SPEAKER, AASIST, KERAS, TQDM,
)  # fmt: skip
