"""How programs that train speech recognition, voices and speaker models print their numbers.

The forms are those of the programs' own format strings and of the lines that real logs hold.
"""

from __future__ import annotations

from parsers.text_logs.dialect import INTEGER, NUMBER, TIME, Dialect, Pattern

__all__ = ["AASIST", "COQUI", "ESPNET", "HIFIGAN", "KALDI", "SPEAKER", "SPEECHBRAIN", "VITS"]

_N, _I = NUMBER, INTEGER
_STEP, _EPOCH = rf"(?P<step>{_I})", rf"(?P<epoch>{_I})"
COQUI = Dialect(
    "coqui",
    "Coqui TTS trainer",
    (
        Pattern("EPOCH: ", rf"^ > EPOCH: {_EPOCH}/{_I}$", opening=r"^ > EPOCH: "),
        Pattern("> TRAINING", rf"^ > (?P<split>TRAINING) \((?P<time>{TIME})\) *$"),
        Pattern("> EVALUATION", r"^ > (?P<split>EVALUATION) *$"),
        Pattern(
            "-- GLOBAL_STEP: ",
            rf"^ *--> (?:TIME: (?P<time>{TIME}) -- )?STEP: {_I}/{_I} -- GLOBAL_STEP: {_STEP}$",
            opening=r"^ *--> (?:TIME: .*)?STEP: ",
        ),
        Pattern(
            "| > ",
            rf"^ {{2,}}\| > (?P<key>[A-Za-z]\w*): (?P<value>{_N}) +(?:\([-+]?{_N}\))?$",
            opening=r"^ {2,}\| > \w+",
        ),
        Pattern("| > ", r"^ \| > (?P<key>[A-Z][^:]*): (?P<value>.*)$", setting=True),
    ),
    metrics={"current_lr": "lr"},
    prefix="avg_",
    carry=("step", "epoch", "split", "time"),
    first_step=0,
)
VITS = Dialect(
    "vits",
    "VITS and so-vits-svc",
    (
        Pattern(
            "Train Epoch: ",
            rf"^(?:(?P<time>{TIME})\t\S+\t[A-Z]+\t)?Train Epoch: {_EPOCH} \[{_N}%\]$",
            opening=r"\tTrain Epoch: ",
        ),
        Pattern(
            "Losses: [",
            rf"^(?:(?P<time>{TIME})\t\S+\t[A-Z]+\t)?Losses: \[(?P<loss_disc>{_N}), (?P<loss_gen>{_N}), "
            rf"(?P<loss_fm>{_N}), (?P<loss_mel>{_N}), (?P<loss_kl>{_N})\], step: {_STEP}, lr: (?P<lr>{_N}).*$",
            opening=r"Losses: \[",
        ),
        Pattern(
            "\t[",
            rf"^(?:(?P<time>{TIME})\t\S+\t[A-Z]+\t)?\[(?P<loss_disc>{_N}), (?P<loss_gen>{_N}), (?P<loss_fm>{_N}), "
            rf"(?P<loss_mel>{_N}), (?P<loss_dur>{_N}), (?P<loss_kl>{_N}), {_STEP}, (?P<lr>{_N})\]$",
            opening=rf"\t\[{_N}, {_N}, ",
        ),
    ),
    carry=("epoch",),
)
HIFIGAN = Dialect(
    "hifi-gan",
    "HiFi-GAN",
    (
        Pattern("Epoch: ", rf"^Epoch: {_EPOCH}$"),
        Pattern(
            "Gen Loss Total",
            rf"^Steps : {_STEP}, (?P<pairs>Gen Loss Total : .*s/b : {_N})$",
            "phrases",
            opening=r"^Steps : ",
        ),
    ),
    metrics={"Gen Loss Total": "g_loss", "Mel-Spec. Error": "mel_error", "s/b": "step_time_s"},
    carry=("epoch",),
)
#: `train_log.txt` has the bare lines, the console and `log.txt` the logger's name before.
_LOGGED = rf"(?:(?:(?P<time>{TIME}) - )?speechbrain\.[a-z_.]+ - (?:[A-Z]+ - )?)?"
SPEECHBRAIN = Dialect(
    "speechbrain",
    "SpeechBrain train logger",
    (
        Pattern(
            " loss: ",
            rf"^{_LOGGED}(?i:epoch): {_EPOCH}, (?P<pairs>.* - train .*)$",
            "phrases",
            opening=rf"^{_LOGGED}(?i:epoch): {_I}, .* - ",
            roles={"steps": "step"},
        ),
        Pattern("test ", rf"^{_LOGGED}(?i:epoch) loaded: {_EPOCH} - (?P<pairs>.*)$", "phrases"),
    ),
)
_ESPNET = rf"^(?:\[[^\]]*\] )?(?:(?P<time>{TIME}) \([^)]*\) [A-Z]+: )?"
ESPNET = Dialect(
    "espnet",
    "ESPnet2 trainer",
    (
        Pattern(
            "batch: ",
            rf"{_ESPNET}{_EPOCH}epoch:(?P<split>train|valid):{_I}-{_STEP}batch: (?P<pairs>.*)$",
            "equals",
            opening=rf"[0-9]epoch:\w+:{_I}-",
        ),
        Pattern(
            "epoch results: ",
            rf"{_ESPNET}{_EPOCH}epoch results: \[train\] (?P<pairs>[^\[]*?), time=[^\[]*, \[valid\] ",
            "equals",
            split="train",
            shares=True,
        ),
        Pattern(
            "epoch results: ",
            rf"{_ESPNET}{_EPOCH}epoch results: \[train\] .*?, \[valid\] (?P<pairs>[^\[]*?), time=",
            "equals",
            opening=r"[0-9]epoch results: ",
            split="eval",
        ),
    ),
    metrics={"optim0_lr0": "lr", "lr_0": "lr"},
    per_epoch=True,
)
#: An objective with a term of regularisation is printed as `a + b = sum`.
_SUM = rf"(?:{_N} \+ {_N} = )?"
KALDI = Dialect(
    "kaldi",
    "Kaldi nnet1 schedules and nnet3 progress",
    (
        Pattern(
            "TRAIN AVG.LOSS",
            rf"^ITERATION {_STEP}: TRAIN AVG\.LOSS (?P<train_loss>{_N}), \(lrate(?P<lrate>{_N})\), "
            rf"CROSSVAL AVG\.LOSS (?P<cv_loss>{_N}), .*$",
            opening=rf"^ITERATION {_I}: TRAIN",
        ),
        Pattern(
            "Iter: ",
            rf"^(?:(?P<time>{TIME}) \[[^\]]*\] )?Iter: {_STEP}/{_I} .*?Epoch: (?P<epoch>{_N})/{_N}.*?lr: (?P<lr>{_N})",
            opening=rf"\] Iter: {_I}/{_I}",
        ),
        Pattern(
            "Overall average objective function",
            rf"Overall average objective function for '(?P<key>[^']+)' is {_SUM}(?P<value>{_N}) over {_N} frames",
            opening=r"Overall average objective function for '",
        ),
        Pattern(
            "Overall log-probability for '",
            rf"Overall log-probability for '(?P<key>[^']+)' is {_SUM}(?P<value>{_N}) per frame",
        ),
    ),
    names={"train_loss": "TRAIN AVG.LOSS", "cv_loss": "CROSSVAL AVG.LOSS"},
    metrics={"TRAIN AVG.LOSS": "train/loss", "CROSSVAL AVG.LOSS": "eval/loss", "lrate": "lr"},
    carry=("step", "epoch"),
)
SPEAKER = Dialect(
    "speaker",
    "score.txt of ECAPA-TDNN trainers",
    (
        Pattern(
            " epoch, LR ",
            rf"^{_EPOCH} epoch, (?P<pairs>LR {_N}, LOSS {_N}, ACC {_N}%.*%)$",
            "words",
            opening=rf"^{_I} epoch, LR",
        ),
    ),
    metrics={"LR": "lr", "LOSS": "loss", "ACC": "accuracy", "EER": "eval/eer", "bestEER": "eval/best_eer"},
)
AASIST = Dialect(
    "aasist",
    "AASIST console",
    (
        Pattern("Start training epoch", rf"^Start training epoch{_EPOCH}$", opening=r"^Start training epoch"),
        Pattern(
            "Loss:",
            rf"^(?P<pairs>Loss:{_N}, dev_eer: {_N}(?: ?, dev_[a-z]+: ?{_N}%?)*)$",
            "colon",
            opening=r"^Loss:[0-9]",
        ),
    ),
    metrics={"Loss": "train/loss", "dev_eer": "eval/eer", "dev_tdcf": "eval/tdcf"},
    carry=("epoch",),
)
