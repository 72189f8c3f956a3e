"""What a metric is, from its name: an alias table as data, so that analyses ask for a role and not for a spelling."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache

__all__ = ["ALIASES", "LOSSES", "ROLES", "Alias", "alias_of", "alike", "is_loss", "role_of", "words_of"]

#: Every role that a series can have, and what it is called in a sentence.
ROLES: dict[str, str] = {
    "loss": "a loss that stands for the whole",
    "component_loss": "a part of a loss",
    "generator_loss": "the loss of a generator",
    "discriminator_loss": "the loss of a discriminator",
    "policy_loss": "a surrogate loss of reinforcement learning, which need not fall",
    "perplexity": "a perplexity",
    "accuracy": "a score of which more is better",
    "reward": "a reward",
    "error_rate": "an error of which less is better",
    "learning_rate": "a learning rate",
    "grad_norm": "a gradient norm",
    "param_norm": "a norm of parameters or of their updates",
    "gradient_share": "a share of gradients or units that are zero, or of steps that were clipped",
    "loss_scale": "the loss scale of mixed precision",
    "weight": "the weight of a loss component",
    "hyperparameter": "a scheduled hyper-parameter",
    "throughput": "a throughput",
    "step_time": "the time that a piece of work takes",
    "wall_time": "a time since the start, until the end or of the day",
    "memory": "memory in use",
    "system": "a reading of the machine",
    "counter": "a counter",
    "best": "the best value so far",
    "d_real": "the discriminator's output on real data",
    "d_fake": "the discriminator's output on generated data",
    "g_adversarial": "the adversarial term of a generator",
    "diversity": "the diversity of samples",
}


@dataclass(frozen=True, slots=True)
class Alias:
    """Names of one role: `pattern` is found in the words of a name (`words_of`), and `unless` is not."""

    role: str
    pattern: str
    unless: str = ""
    found: re.Pattern[str] = field(init=False, repr=False)
    barred: re.Pattern[str] | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "found", re.compile(self.pattern))
        object.__setattr__(self, "barred", re.compile(self.unless) if self.unless else None)


_G, _D = r"(?:g|gen|generator|net ?g)", r"(?:d|dis|disc|discr|discriminator|net ?d)"
#: Words that say how a loss was summed up, over what, or where it stands, and leave it the loss of the whole.
_WHOLE = (
    r"(?:(?:avg|average|averaged|mean|running|smooth|smoothed|ema|epoch|iter|iteration|step|batch|global|overall|total|sum"
    r"|full|final|combined|raw|current|cur|last|reduced|scaled|all|train|training|trainer|eval|evaluation|val|valid"
    r"|validation|dev|cv|test|metrics?|stats?|tracked|scalars?|charts?|logs?|optim|optimization|performance|model|main"
    r"|lm|mlm|clm|language|masked|causal|ce|nll|cross|entropy|xent|softmax|bce|ctc|rnnt|mse|log|label) )*"
)
_AFTER = (
    r"(?: (?:avg|average|mean|epoch|iter|step|batch|global|total|sum|all|smooth|smoothed|ema|displayed|train"
    r"|val))*"
)
_ITEM = (
    r"(?:tok|tokens?|samples?|its?|iters?|steps?|items?|imgs?|images|words|frames|utts|files|examples|ex|seqs?|sequences"
    r"|sentences|batch|batches|updates|pairs|gb|mb)"
)
_WORK = (
    r"(?:step|iter|iteration|batch|epoch|data|load|loader|loading|dataloader|forward|backward|fwd|bwd|optim|optimizer"
    r"|compute|comm|eval|evaluation|validation|fetch|image|sample|save|checkpoint|update|rollout|generation|inference)"
)
_ONE = r"(?:it|iter|iteration|step|batch|epoch|sample|image|token|update)"
_SECONDS = r"(?:s|secs?|seconds?|ms|us|ns)"
_OUTPUT = r"(?: (?:score|prob|out|output|mean|logits?))?"
_ADVERSARIAL = r"(?: (?:adv|gan|total|fake|all|avg|mean|epoch|step|\d+))*"
_COUNTED = (
    r"(?:epochs?|steps?|timesteps?|iters?|iterations?|progress|percentage|phase|tokens|samples|examples|sentences"
    r"|documents|episodes|updates|batches|flos)"
)
_BENCHMARKS = (
    r"hellaswag|mmlu|arc(?: easy| challenge)?|piqa|winogrande|gsm\dk|humaneval|boolq|openbookqa|truthfulqa|lambada"
)

#: Asked from top to bottom; the first that fits decides, so that false friends stand before those that they resemble.
ALIASES: tuple[Alias, ...] = (
    # What `watch` records of layers ends in the layer's name, which may be any: `dead_units/loss` is no loss.
    Alias("gradient_share", r"\b(?:zero grads|dead units|clip rate)\b"),
    Alias("counter", r"\bnonfinite grads\b"),
    Alias("param_norm", r"\bupdate ratio\b"),
    Alias("best", r"\b(?:best|lowest|highest)\b"),
    Alias("loss_scale", r"\b(?:loss|grad|gradient|amp) ?scal(?:e|er|ing)\b|\bscaler\b", r"\blr\b|\blearning\b"),
    Alias("param_norm", r"\b(?:param|parameter|weight|update)s? ?(?:l2 )?norms?\b|\bpnorm\b", r"\bgrad"),
    Alias(
        "grad_norm",
        r"\bgrad(?:ient)?s?(?: (?:\d+|l\d|inf|total|global|overall|abs|max|min|mean|avg|unclipped|clipped))* ?norms?\b"
        r"|\bgrad(?:ient)?s? .*(?<!layer )(?<!batch )\bnorm$|\bnorm (?:of )?(?:the )?grad(?:ient)?s?\b"
        r"|\bgnorm\b|\bgn\b|\b(?:global|total) norm$",
        r"^max grad|\b(?:threshold|ratio|std|var|scale)$",
    ),
    Alias(
        "counter",
        r"\b(?:total|consumed|cumulative|num|number|seen|processed) .*\b(?:tokens|samples|steps?|timesteps?|flos|flops"
        r"|[gt]flops|iterations|episodes|examples|sentences|batches|params?)\b",
        r"\bper\b|loss|\bnorm\b|\btime$",
    ),
    Alias("learning_rate", r"\b(?:lrs?|lrate|learning ?rates?|lrm)\b|\blr\d+\b", r"\bloss\b|\b(?:patience|steps?)$"),
    Alias(
        "step_time",
        rf"\b(?:{_SECONDS}|time) (?:per )?{_ONE}\b|\b{_WORK} (?:time|duration|runtime|latency|{_SECONDS})\b"
        r"|\bdt\b|\bstep avg\b|\blatency\b",
        rf"\bper {_SECONDS}\b|\b{_ITEM} (?:s|secs?)$(?<!image s)(?<!step s)(?<!ms)",
    ),
    Alias(
        "throughput",
        rf"\bper (?:s|sec|second|minute|min|hour|day|device|gpu)s?\b|\b{_ITEM} (?:s|sec|ps)\b|\bthroughput\b"
        r"|\b(?:tps|wps|ups|fps|mfu|hfu|sps|ips|qps|[gt]?flops)\b|\b(?:train|training|processing) speed$",
        r"\btotal\b",
    ),
    Alias(
        "wall_time",
        r"\b(?:elapsed|eta|remaining|wall ?time|wall ?clock|timestamp|runtime|datetime)\b|\bwall$"
        r"|\btime (?:left|since)\b"
        r"|\b(?:start|end|stop|total|train|training|relative|unix|wall|cumulative|overall) time\b",
    ),
    Alias("step_time", rf"\btime(?: {_SECONDS})?$|^duration(?: {_SECONDS})?$"),
    Alias(
        "weight",
        r"^curriculum weight\b|\b\w+ weights?$|\bloss (?:weights?|coef|coefficient|lambda)\b|\blambda\b",
        r"^(?:model|layer|param|system)\b|\bgrads?\b",
    ),
    Alias("hyperparameter", r"\bloss (?:ratio|share|fraction|counts?|spikes?)\b"),
    Alias("d_real", rf"(?:^|.* ){_D} (?:on )?(?:real|x){_OUTPUT}$", r"\b(?:loss|err)\b"),
    Alias("d_fake", rf"(?:^|.* ){_D} (?:on )?(?:fake|gen|generated|g z\d?){_OUTPUT}$", r"\b(?:loss|err)\b"),
    Alias("g_adversarial", rf"(?:^|.* )g gan(?: loss)?$|(?:^|.* ){_G} adv(?:ersarial)?(?: loss)?$|\bloss g gan$"),
    Alias(
        "diversity",
        r"\bdiversity\b|\blpips div\b|\bn ?modes\b|\bmodes? (?:coverage|covered)\b"
        r"|\b(?:sample|fake) (?:std|var|variance)\b",
        r"\bloss\b",
    ),
    Alias(
        "discriminator_loss",
        rf"\b{_D} (?:loss|err|total)\b|\b(?:loss|losses|err) {_D}\b|\b(?:dloss|lossd|errd|discloss)\b",
        r"\bacc(?:uracy)?\b|\b(?:reg|penalty|gp)$",
    ),
    Alias(
        "generator_loss",
        rf"\b{_G} (?:loss|err|total){_ADVERSARIAL}$|\b(?:loss|losses|err) {_G}{_ADVERSARIAL}$"
        r"|\b(?:gloss|lossg|errg|genloss)\b",
    ),
    Alias(
        "policy_loss",
        r"\b(?:policy|policy gradient|pg|actor|surrogate|entropy|ent coef) loss\b|\bloss (?:pi|policy|actor|entropy)\b",
        r"\bcross entropy\b",
    ),
    Alias("perplexity", r"\b(?:ppl|perplexity|perp)\b"),
    Alias(
        "loss",
        rf"^{_WHOLE}(?:loss|losses|cost|objective|nll|elbo|bpb|bpc|bits per (?:byte|char|token)|crossentropy"
        rf"|cross entropy|xent|logloss)(?: (?:mean words|per token|per word))?{_AFTER}$"
        rf"|^{_WHOLE}(?:ce|mse|mae)(?: mean words)?{_AFTER}$|^lm loss value$",
    ),
    Alias(
        "component_loss",
        r"\w*loss(?:es)?\b|\b(?:info ?nce|huber|smooth l1|nll|bce|mse|mae|elbo|cross entropy|crossentropy|ce)\b",
        r"\b(?:lossless|gloss|packet loss|weight loss)\b|\bloss z$"
        r"|\b(?:acc|accuracy|accuracies|score|corr|scale|weights?|ratio|std|var)$",
    ),
    Alias(
        "error_rate",
        r"\b(?:wer|cer|ter|eer|der|mer|fid|kid|fad|lpips|mcd|rmse|rmsle|mape|smape|(?:min ?)?t? ?dcf)\b"
        r"|\berr(?:or)?s?(?: (?:rate|top ?\d))?\b|\bedit distance\b",
        r"\b(?:count|num)\b",
    ),
    Alias("reward", r"\b(?:rewards?|rew|returns?)\b", r"\b(?:std|var|variance|scale|accuracy|accuracies)\b"),
    Alias(
        "accuracy",
        r"\b(?:acc\d?|accuracy|accuracies|top ?\d+|f1|f ?beta|dice|auc|au ?roc|au ?prc?|roc|m?ap ?\d*|m?iou|bleu ?\d?"
        r"|sacrebleu|rouge ?\w*|meteor|chr ?f|cider|precision|prec ?\d|recall|mcc|corr|correlation|pearsonr?|spearmanr?"
        r"|r2|kappa|ndcg|mrr|hits? (?:at )?\d+|exact match|score|psnr|ssim|pesq|stoi|dnsmos|mos|pass (?:at )?\d+"
        rf"|success(?: rate)?|win ?rate|{_BENCHMARKS})\b|^precision b$|^core(?: metric)?$",
        r"\b(?:feature map|std|var|grad|steps|accum\w*|time|count|attention)\b",
    ),
    Alias(
        "hyperparameter",
        r"\b(?:momentum|weight decay|wd|betas?|dropout|ema decay|teacher forcing\w*|epsilon|eps"
        r"|clip (?:range|threshold)|temperature|batch ?size|bsz|wpb|seq(?:uence)? ?len(?:gth)?|mask ratio|drop path"
        r"|gamma|context length)\b",
        r"\b(?:gpu|cpu|system)\b",
    ),
    Alias(
        "system",
        r"^system\b(?!.*\b(?:memory allocated(?: bytes)?|memory percent|rss(?: mb)?)$)(?!.*\b(?:peak|max|used)\b)"
        r"|\bgpu \d+ memory$",
    ),
    Alias(
        "memory",
        r"\b(?:mem|memory|vram|rss|ram|hbm|maxrss)\b|\bgpu (?:gb|mb)\b|\b(?:gpu|max|peak)mem\b",
        r"\b(?:clock|bank|bandwidth|replay|attention|total|limit|capacity|available|free|tokens|slots?)\b",
    ),
    Alias(
        "system",
        r"\b(?:fan ?speed|watts?|temp|temperature|disk|network|(?:sm|memory) clock|power|cpu|util|utili[sz]ation)\b",
    ),
    Alias(
        "counter",
        rf"^(?:(?:trainer|train|eval|global|time|rollout|num|n|current|input batch|data|optimizer) )*{_COUNTED}$"
        r"|^curriculum progress$|^data \w+|\b(?:count|seen)$|^(?:num|n|number of) \w+|\bglobal steps?$"
        r"|\b(?:steps|epochs|iterations|iters|tokens|samples|examples|episodes|used)$|^(?:correct|total)$",
        r"\b(?:mean|avg|std|per)\b",
    ),
)
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z][a-z]|[A-Z]{2,})|(?<=[a-z0-9])(?=[A-Z]$)|(?<=[a-z]{2})(?=[A-Z])")
_BETWEEN = re.compile(r"[^a-z0-9]+")
#: The end of a longer name decides: patterns are tried at every place of it.
_LONGEST = 256
#: The layers of a large model differ in their numbers only, and in no pattern does a digit above 2 matter: with these
#: made one, ten thousand tags are a few hundred names to look at.
_ALIKE = str.maketrans("456789", "333333")


@lru_cache(maxsize=65536)
def words_of(metric: str) -> str:
    """The words of a name in lower case, one space between: what stands between words, and camel case, is all one.

    >>> [words_of(m) for m in ("train/loss_epoch", "memoryAllocatedBytes", "metrics/mAP50-95(B)", "tok/s", "D(G(z))")]
    ['train loss epoch', 'memory allocated bytes', 'metrics map50 95 b', 'tok s', 'd g z']
    """
    spaced = metric.replace("mAP", "map").replace("IoU", "iou")
    if spaced != spaced.lower():
        spaced = _CAMEL.sub(" ", spaced).lower()
    return _BETWEEN.sub(" ", spaced).strip()


def alike(metric: str) -> str:
    """A name with the same role for the same key: names that differ in digits above 2 only have one.

    >>> alike("layers.7/grad_norm") == alike("layers.9/grad_norm")
    True
    """
    return metric.translate(_ALIKE)


@lru_cache(maxsize=65536)
def _first(key: str) -> tuple[str, str]:
    words = words_of(key)[-_LONGEST:]
    for alias in ALIASES:
        match = alias.found.search(words)
        if match and not (alias.barred is not None and alias.barred.search(words)):
            return alias.role, match[0].strip()
    return "", ""


def alias_of(metric: str) -> tuple[str, str]:
    """Role of a metric by its name, and the words in the name that say so; two empty strings when none do.

    >>> alias_of("train/learning_rate"), alias_of("loss_scale"), alias_of("foo")
    (('learning_rate', 'learning rate'), ('loss_scale', 'loss scale'), ('', ''))
    """
    key = alike(metric)
    role, said = _first(key)
    if key != metric and "3" in said and said not in words_of(metric):
        return role, words_of(metric)[-_LONGEST:]
    return role, said


def role_of(metric: str) -> str:
    """Role of a metric by its name, or the empty string when no pattern fits; of a run, ask `run.roles`.

    >>> [role_of(m) for m in ("loss", "kd_loss", "lr", "grad_norm", "d_loss", "tokens_per_second", "foo")]
    ['loss', 'component_loss', 'learning_rate', 'grad_norm', 'discriminator_loss', 'throughput', '']
    """
    return alias_of(metric)[0]


#: Roles whose series is minimised by somebody: losses, their parts, perplexity.
LOSSES = frozenset({"loss", "component_loss", "generator_loss", "discriminator_loss", "policy_loss", "perplexity"})


def is_loss(metric: str) -> bool:
    """Whether smaller is better and the series should fall: losses, their components, perplexity.

    >>> is_loss("train_loss"), is_loss("learning_rate")
    (True, False)
    """
    return role_of(metric) in LOSSES
