"""What a dialect of text logs is: patterns with named groups, and how what they find is named and carried on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import polars as pl

from eventstream.errors import InputError

__all__ = [
    "COMMAS",
    "INTEGER",
    "LEVELS",
    "NUMBER",
    "PAIRS",
    "PLACE",
    "PROSE",
    "TIME",
    "UNIT",
    "Dialect",
    "Pattern",
    "groups_of",
]

#: A number without thousands separators, an integer, and a number that may hold commas. Only ASCII classes: the
#: engine then decides byte by byte, which is five times as fast as with Unicode classes.
NUMBER = r"[-+]?(?:[0-9.]+(?:[eE][-+]?[0-9]+)?|[nN][aA][nN]|[iI][nN][fF](?:inity)?)"
INTEGER = r"[0-9]+"
COMMAS = r"[-+]?(?:[0-9][0-9.,]*(?:[eE][-+]?[0-9]+)?|[nN][aA][nN]|[iI][nN][fF](?:inity)?)"
#: A date and time as Python's logging and most others print it.
TIME = r"[0-9]{4}[-/][0-9]{2}[-/][0-9]{2}[ T][0-9]{2}:[0-9]{2}:[0-9]{2}(?:[.,][0-9]+)?"

#: What may stand behind a number and leaves it one.
UNIT = r"(?:[kKMGBT]|%|ms|s|sec|min|h|[kKMG]i?B|(?:[A-Za-z]+|[kKM] ?[a-z]+)/(?:s|sec|h|gpu|GPU|it|step))?"
#: What stands for the value of a pair: a number, or something that begins as one and is none.
_UNENDED = r"(?=(?:ms|s|m|z|%)?(?![\w.-]))"
_VALUE = rf"([-+]?(?:[0-9.][0-9.,eE+-]*[0-9.]|[0-9]|(?:[nN][aA][nN]|[iI][nN][fF](?:inity)?){_UNENDED})[A-Za-z0-9_.]*)"
_WORD = r"[A-Za-z_][\w./@#-]*"
#: One to three words as a name, none of them a word of prose: `saved at 3` is no measurement.
PROSE = "a|about|after|and|around|at|before|by|every|finished|for|from|has|in|is|loaded|of|on|or|over|saved|see|since"
PROSE += "|than|the|to|took|until|version|was|with"
LEVELS = "TRACE|DEBUG|INFO|WARNING|WARN|ERROR"
_NAME = rf"(?!(?:{LEVELS})[ \t])(?!(?:[\w./@#-]+[ \t]+){{0,2}}(?i:{PROSE})[ \t]){_WORD}(?: {_WORD}){{0,2}}"
#: Ways to write sequences of names and numbers; each finds a name and the text of its value. None can backtrack far:
#: what repeats is bounded or cannot match what follows it.
PAIRS: dict[str, str] = {
    # `loss: 1.2 acc: 0.3`, `Loss:0.66449, dev_eer: 18.051`
    "colon": rf"({_WORD}) ?: ?{_VALUE}",
    # `| lm loss: 2.0E+01 | grad norm: 7.9 |`
    "bars": rf"(?:^|\|)[ \t]*([^|:=]{{1,80}}?)[ \t]*:[ \t]*{_VALUE}",
    # `Gen Loss Total : 35.1, Mel-Spec. Error : 0.6, s/b : 0.2`, `lr: 1.0 - train loss: 5.7`
    "phrases": rf"(?:^|, | - |; )[ \t]*([^,:=|]{{1,80}}?)[ \t]*:[ \t]*{_VALUE}",
    # `iter_time=0.1, loss=1.2`
    "equals": rf"([A-Za-z_][\w./@#-]*(?: \([A-Za-z]+\))?) ?= ?{_VALUE}",
    # `| loss 9.5 | nll_loss 8.9 | wps 100`
    "bar-words": rf"(?:^|\|)[ \t]*([^|\s]{{1,80}})[ \t]+{_VALUE}",
    # `LR 0.001000, LOSS 9.661726, ACC 3.00%`
    "words": rf"(?:^|,)[ \t]*({_WORD})[ \t]+{_VALUE}",
    # `"loss": "9.5", "num_updates": 100`
    "json": rf'"([^"]{{1,80}})": ?"?{_VALUE}',
    # `key: value` and `key=value` in any line, and `| key value |` where nothing else stands between the bars
    "any": rf"(?:^|\|)[ \t]*({_NAME})[ \t]+{_VALUE}(?=[ \t]*{UNIT}(?:[ \t]*\([^|()]*\))?[ \t]*(?:\||$))"
    rf"|((?:{_WORD})(?: [A-Za-z][\w./-]*){{0,2}}(?: \([A-Za-z%]+\))?)['\"]?[ \t]*[:=][ \t]*['\"]?{_VALUE}",
    # `step 10, train loss 2.3, lr 1e-4` in a line that holds nothing else
    "plain": rf"(?<![\w./@#:-])({_NAME})[ \t]+{_VALUE}",
}

#: Groups of a pattern that say where a number belongs; every other named group is a number itself.
PLACE = ("step", "epoch", "time", "split", "rank")
_SPECIAL = {*PLACE, "total", "planned_steps", "pairs", "key", "value"}


@dataclass(frozen=True, slots=True)
class Pattern:
    """One kind of line. `literal` must stand in it; `regex` has named groups, in the syntax of Rust's `regex`.

    The groups `step`, `epoch`, `time`, `split` and `rank` place the line; `total` is the number of batches in an epoch;
    `planned_steps` is how many steps the whole training is to have (`step 7/100`); `pairs` is a text of names and
    values (`style`, one of `PAIRS`); `key` and `value` are one name and its number; any other named group is a number
    under that name. `roles` tells which names of `pairs` are a step or an epoch. A line that matches `opening` and not
    `regex` is a damaged line. `setting` marks lines of configuration, and `event` is the kind of event that a line is
    instead of numbers; `start` is one that the program writes at each start, which opens another attempt. `prefix`
    stands before the names of `pairs`. A line that does not end with `closing` (blanks apart) does not match: told
    apart from `regex` because that is faster. Groups `eta__h`, `eta__min` and the like are parts of one duration `eta`,
    in seconds. Lines of a pattern that `shares` are left for the patterns after it too: one line then tells of two
    splits. `redrawn` finds the count of a bar that is drawn over itself: of drawings on one line of the file that
    follow one another with the same count only the last is read; where it has a second group, the count to be reached,
    only those that have reached it.
    """

    literal: str
    regex: str
    style: str = ""
    opening: str = ""
    split: str = ""
    roles: Mapping[str, str] = field(default_factory=dict)
    setting: bool = False
    event: str = ""
    prefix: str = ""
    closing: str = ""
    shares: bool = False
    redrawn: str = ""

    @property
    def values(self) -> tuple[str, ...]:
        """Groups that are numbers, in their order."""
        return tuple(g for g in groups_of(self.regex) if g not in _SPECIAL)


@dataclass(frozen=True, slots=True)
class Dialect:
    """One program's way to print its numbers: its patterns in the order tried, and what the names mean.

    `names` gives for a group the name that the log prints (`val_loss` for `val loss`), `metrics` for such a name what
    it is in the field's words where the usual rule does not tell (`trl` is `train/loss`), `scale` a factor to bring it
    to the unit of its name. `carry` lists what a line hands on to the lines after it (`step`, `epoch`, `split`), where
    a header is followed by its numbers; `first_step` is the step of numbers before the first header.

    >>> Dialect("mine", "my own", (Pattern("it ", "^it (?P<step>[0-9]+) loss (?P<loss>[0-9.]+)$"),)).patterns[0].values
    ('loss',)
    """

    name: str
    what: str
    patterns: tuple[Pattern, ...]
    names: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, str] = field(default_factory=dict)
    scale: Mapping[str, float] = field(default_factory=dict)
    #: What stands before the names of averages: `avg_loss` beside `loss` is the same metric.
    prefix: str = ""
    carry: tuple[str, ...] = ()
    first_step: int | None = None
    #: Steps are iterations that begin again with every epoch: they are counted over the whole run.
    per_epoch: bool = False
    #: Used only where no other dialect fits: what it finds may be a copy of what the log says better elsewhere.
    fallback: bool = False


def groups_of(regex: str) -> tuple[str, ...]:
    """Names of the groups of a regular expression in their order; `InputError` says what is wrong with it.

    >>> groups_of("(?P<step>[0-9]+) (?P<loss>[0-9.]+)")
    ('step', 'loss')
    >>> groups_of("(?P<step>[0-9]+")
    Traceback (most recent call last):
    ...
    eventstream.errors.InputError: the regular expression '(?P<step>[0-9]+' cannot be used: unclosed group
    """
    try:
        found = pl.Series([""]).str.extract_groups(regex)
    except pl.exceptions.ComputeError as error:
        reason = str(error).strip().rsplit("error: ", 1)[-1]
        raise InputError(f"the regular expression {regex[:80]!r} cannot be used: {reason}") from error
    fields = found.dtype.fields if isinstance(found.dtype, pl.Struct) else []
    return tuple(f.name for f in fields if not f.name.isdigit())
