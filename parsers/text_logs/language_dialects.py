"""How programs that train language models and translators print their numbers.

The forms are those of the programs' own format strings and of the lines that real logs hold.
"""

from __future__ import annotations

from parsers.text_logs.dialect import COMMAS, INTEGER, NUMBER, TIME, Dialect, Pattern

__all__ = ["FAIRSEQ", "LLMC", "MARIAN", "MEGATRON", "MODDED", "NANOCHAT", "NANOGPT", "OLMO"]

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
