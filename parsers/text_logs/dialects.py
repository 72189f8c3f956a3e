"""The table of dialects: how the well-known programs print their numbers, one entry a dialect, the specific first.

The forms are those of the programs' own format strings and of the lines that real logs hold.
"""

from __future__ import annotations

from parsers.text_logs.dialect import COMMAS, INTEGER, NUMBER, TIME, Dialect, Pattern
from parsers.text_logs.dialect_toml import from_toml

__all__ = ["DIALECTS", "from_toml"]

_N, _I, _C = NUMBER, INTEGER, COMMAS
_STEP, _EPOCH = rf"(?P<step>{_I})", rf"(?P<epoch>{_I})"
_OF = rf"/ *(?P<planned_steps>{_I})"
MEGATRON = Dialect(
    "megatron",
    "Megatron-LM, Megatron-DeepSpeed, GPT-NeoX",
    (
        Pattern(
            "| elapsed time per iteration",
            rf"^(?:\[default(?P<rank>{_I})\]:)? +(?:\[(?P<time>{TIME})\] +)?"
            rf"iteration +{_STEP}{_OF} *\|(?P<pairs>.*)$",
            "bars",
            opening=rf"iteration +{_I}/ *{_I} *\|",
            closing="|",
        ),
        Pattern(
            " elapsed time per iteration",
            rf"^[^|]{{0,80}}?(?:samples/sec: {_N} \|)? *iteration +{_STEP}{_OF} *\|(?P<pairs>.*)$",
            "bars",
            closing="|",
        ),
        Pattern(
            "loss at iteration",
            rf"(?P<split>validation|test) loss at iteration {_STEP} (?:on [^|]*)?\|(?P<pairs>.*)$",
            "bars",
            closing="|",
            opening=r"(?:validation|test) loss at iteration",
        ),
        Pattern(" .....", r"^ {2}(?P<key>[a-z]\w*) \.{3,} ?(?P<value>.*)$", setting=True),
    ),
    metrics={
        "lm loss value": "lm_loss",
        "lm loss PPL": "lm_loss_ppl",
        "learning rate": "learning_rate",
        "grad norm": "grad_norm",
    },
)
LLMC = Dialect(
    "llm.c",
    "llm.c on standard output",
    (
        Pattern(
            "| norm ",
            rf"^step +{_STEP}{_OF} \| loss +(?P<loss>{_N}) \((?P<loss_z>{_N})z\)\| norm +(?P<norm>{_N}) "
            rf"\((?P<norm_z>{_N})z\)\| lr (?P<lr>{_N}) \| (?P<ms>{_N}) ms \|(?: (?P<mfu>{_N})% [a-z0-9]+ MFU \|)? "
            rf".*?(?P<tok_per_s>{_N}) tok/s$",
            opening=rf"^step +{_I}/{_I} \| loss ",
        ),
        Pattern(
            "| train loss ",
            rf"^step +{_STEP}{_OF} \| train loss +(?P<loss>{_N}) \| norm +(?P<norm>{_N}) \| lr (?P<lr>{_N}) "
            rf"\(?(?P<ms>{_N}) ms.*$",
            opening=rf"^step +{_I}/{_I} \| train loss ",
        ),
        Pattern("val loss ", rf"^val loss (?P<val_loss>{_N})$", opening=r"^val loss"),
        Pattern("HellaSwag: ", rf"(?:^|\s)HellaSwag: {_I}/{_I} = (?P<hellaswag>{_N})$", split="eval"),
        Pattern("| ", r"^\| (?P<key>[a-zL][^|]*?) +\| (?P<value>[^|]*?) +\|$", setting=True),
    ),
    names={"val_loss": "val loss", "tok_per_s": "tok/s"},
    metrics={"norm": "grad_norm", "ms": "step_time_ms", "tok/s": "tokens_per_second"},
    carry=("step",),
    first_step=0,
)
NANOGPT = Dialect(
    "nanogpt",
    "nanoGPT",
    (
        Pattern(
            "train loss",
            rf"^step {_STEP}: train loss (?P<train_loss>{_N}), val loss (?P<val_loss>{_N})$",
            opening=rf"^step {_I}: train loss",
        ),
        Pattern(
            "iter ",
            rf"^iter {_STEP}: loss (?P<loss>{_N}), time (?P<time_ms>{_N})ms(?:, mfu (?P<mfu>{_N})%)?$",
            opening=rf"^iter {_I}: loss",
        ),
        Pattern("parameters: ", rf"^(?P<key>number of parameters): (?P<value>{_N}M)$", setting=True),
    ),
    names={"train_loss": "train loss", "val_loss": "val loss", "time_ms": "time"},
    metrics={"time": "step_time_ms"},
)
MODDED = Dialect(
    "modded-nanogpt",
    "modded-nanogpt and early llm.c log files",
    (
        Pattern(
            "step:",
            rf"^step:{_STEP}{_OF} (?P<pairs>(?:[a-z_]+:\S+ )*step_avg:{_N}ms)$",
            "colon",
            opening=rf"^step:{_I}/{_I}",
        ),
        Pattern("s:", rf"^s:{_STEP} (?P<key>tel|trl|eval|gn|lr):(?P<value>{_N})$", opening=rf"^s:{_I} t[er]l:"),
    ),
    metrics={"trl": "train/loss", "tel": "eval/loss", "train_time": "elapsed_ms", "step_avg": "step_time_ms"},
)
NANOCHAT = Dialect(
    "nanochat",
    "nanochat",
    (
        Pattern(
            "| loss: ",
            rf"^step {_STEP}(?:{_OF})? \({_N}%\) \| (?P<pairs>.*?total time: {_N}m(?: \| eta: .*)?)$",
            "bars",
            opening=rf"^step {_I}(?:/{_I})? \({_N}%\) \|",
            roles={"epoch": "epoch"},
        ),
        Pattern("| Validation", rf"^Step {_STEP} \| Validation bpb: (?P<val_bpb>{_N})$", opening=rf"^Step {_I} \| Val"),
        Pattern("| CORE metric", rf"^Step {_STEP} \| CORE metric: (?P<core>{_N})$", split="eval"),
        Pattern("Inherited ", r"^Inherited (?P<key>\w+)=(?P<value>\S+) from", setting=True),
    ),
    names={"val_bpb": "val bpb", "core": "CORE metric"},
    metrics={"dt": "step_time_ms", "tok/sec": "tokens_per_second", "lrm": "lr_multiplier"},
)
OLMO = Dialect(
    "olmo",
    "OLMo trainer console",
    (
        Pattern(
            "[step=",
            rf"^(?P<time>{TIME})\s+\S+?(?::(?P<rank>{_I}))?\s.*\[step={_STEP}(?:{_OF})?(?:,epoch={_EPOCH}(?:/{_I})?)?\]$",
            opening=r"\[step=",
        ),
        Pattern(
            "=",
            rf"^    (?P<key>[A-Za-z][^=/:]{{0,60}}/[^=:]{{0,120}})=(?P<value>{_C})$",
            opening=r"^    [A-Za-z]\w*/[A-Za-z/ ()]+=[0-9]",
        ),
    ),
    metrics={
        "optim/total_grad_norm": "grad_norm",
        "train/CrossEntropyLoss": "train/loss",
        "train/Perplexity": "train/perplexity",
        "eval/CrossEntropyLoss": "eval/loss",
        "throughput/device/tokens_per_second": "tokens_per_second",
        "System/Peak GPU Memory (MB)": "gpu_memory_mb",
    },
    carry=("step", "epoch", "time"),
)
_FAIRSEQ = rf"^(?:(?P<time>{TIME}) \| [A-Z]+ \| )?"
FAIRSEQ = Dialect(
    "fairseq",
    "fairseq, as simple, tqdm and JSON lines",
    (
        Pattern(
            '| {"',
            rf"{_FAIRSEQ}(?P<split>train|valid|test)\w* \| \{{(?P<pairs>.*)\}}$",
            "json",
            opening=r'\| (?:train|valid|test)\w* \| \{"',
            roles={"epoch": "epoch", "num_updates": "step", "train_num_updates": "step", "valid_num_updates": "step"},
        ),
        Pattern(
            " / ",
            rf"{_FAIRSEQ}(?:train\w* \| )?\|? ?epoch {_EPOCH}: +{_I} / {_I} (?P<pairs>.*=.*)$",
            "equals",
            opening=rf"\| epoch {_I}: +{_I} / {_I} ",
            roles={"num_updates": "step"},
            split="train",
        ),
        Pattern(
            "subset",
            rf"{_FAIRSEQ}(?:valid\w* \| )?\|? ?epoch {_EPOCH} \| valid on '[^']*' subset \|(?P<pairs>.*)$",
            "bar-words",
            opening=r"\| valid on '",
            roles={"num_updates": "step"},
            split="eval",
        ),
        Pattern(
            "epoch ",
            rf"{_FAIRSEQ}(?:train \| )?\|? ?epoch {_EPOCH} \|(?P<pairs> (?:train_)?loss .*)$",
            "bar-words",
            opening=rf"\| epoch {_I} \|",
            roles={"num_updates": "step"},
            split="train",
        ),
    ),
)
MARIAN = Dialect(
    "marian",
    "Marian NMT",
    (
        Pattern(
            " : Cost ",
            rf"^\[(?P<time>{TIME})\] Ep\. (?P<epoch>{_N}) : Up\. (?P<step>[0-9,]+) : Sen\. (?P<sentences>[0-9,]+) : "
            rf"Cost (?P<Cost>{_N})(?: [*@a][^:]*)? : Time (?P<Time>{_N})s : (?P<words_per_s>{_N}) words/s"
            rf"(?: : gNorm (?P<gNorm>{_N}))?(?: : L\.r\. (?P<lr>{_N}))?$",
            opening=rf"\] Ep\. {_N} : Up\. ",
            split="train",
        ),
        Pattern(
            "[valid]",
            rf"^\[(?P<time>{TIME})\] \[valid\] Ep\. (?P<epoch>{_N}) : Up\. (?P<step>[0-9,]+) : (?P<key>\S+) : "
            rf"(?P<value>{_N}) : (?:new best|stalled [0-9]+ times.*|no effect)$",
            opening=r"\[valid\] Ep\. ",
            split="eval",
        ),
        Pattern("[config]", r"\[config\] (?P<key>[a-z][\w-]*): (?P<value>.*)$", setting=True),
    ),
    names={"sentences": "Sen.", "words_per_s": "words/s", "lr": "L.r."},
    metrics={
        "L.r.": "lr",
        "gNorm": "grad_norm",
        "Time": "step_time_s",
        "Sen.": "sentences",
        "words/s": "words_per_sec",
    },
)
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
