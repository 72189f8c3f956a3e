"""Kinds of the family checkpoints: what the files of weights say."""

from __future__ import annotations

from analysis.kinds.kind import Kind, Limit

__all__ = ["KINDS"]

KINDS = {
    "checkpoint-corrupt": Kind(
        "checkpoints",
        "a checkpoint is damaged or incomplete",
        needs="a checkpoint",
        statistic="every place that cannot be read: a file that ends early, a shard that is missing, a header whose "
        "offsets overlap or lie beyond the file, an entry whose bytes do not unpack. The rest is read and judged",
        severity="critical where weights or optimizer are concerned; a warning for what lies beside them (schedule, "
        "random states); info for what is not supported here",
        causes=(
            "the process ended, or the disk was full, while the file was written or copied",
            "a file is missing: it was not copied, or its process never wrote it",
            "another process wrote to the same file at the same time",
        ),
        suggestions=(
            "go back to the save before it",
            "copy the file again, and compare sizes and checksums with the original",
            "write to a temporary name and rename it when it is whole",
        ),
        reference="safetensors: format; PKWARE, APPNOTE (zip), which torch.save writes",
    ),
    "checkpoint-unsafe": Kind(
        "checkpoints",
        "a checkpoint would run code when opened",
        needs="a checkpoint that holds pickles (torch, Lightning, NumPy objects)",
        statistic="the callables that its pickles name, read without calling any: those that are known to run code, or "
        "to reach files, network or imports, and those on no list",
        severity="critical for a call of a dangerous one, a warning where one is only named; info for unknown classes, "
        "which every checkpoint with objects of its own has (hyper-parameters, training arguments)",
        causes=(
            "the file was made to run code on whoever opens it",
            "an object was pickled whose class runs code when it is rebuilt",
            "objects of the trainer or of the project were saved beside the weights",
        ),
        suggestions=(
            "do not open it with torch.load(weights_only=False), pickle or joblib, unless you trust who wrote it",
            "convert the weights to safetensors, which hold no code",
            "ask where the file comes from, and compare its checksum with that of the origin",
        ),
        reference="Python, pickle: 'Warning: the pickle module is not secure'; PyTorch, torch.load, weights_only",
    ),
    "checkpoint-non-finite": Kind(
        "checkpoints",
        "weights are NaN or infinite, or about to be",
        needs="a checkpoint",
        statistic="NaN and infinities in weights, averages and states of the optimizer. Masks of 0 and -inf, and "
        "bounds that begin at infinity, are healthy. float16 weights beyond half of the largest; tensors of which "
        "a fifth is subnormal",
        severity="critical in weights and averages, and for NaN in moments; a warning for infinite moments and for "
        "float16 weights one doubling from infinity; info for subnormal values. One finding a save: averages and "
        "moments that hold them too are named in that of the weights",
        causes=(
            "a step with a gradient that was not finite reached the weights",
            "a part of the model broke: a division by 0, a logarithm of 0, an empty batch in it",
            "values beyond the largest number of the type: float16 ends at 65,504",
        ),
        suggestions=(
            "go back to the last save without them",
            "skip steps whose gradient is not finite (GradScaler does), and clip gradients",
            "train or save in bfloat16 or float32",
        ),
        reference="IEEE 754-2019, section 3.3: what types hold; P. Micikevicius et al., 'Mixed Precision Training' "
        "(ICLR 2018)",
    ),
    "checkpoint-mismatch": Kind(
        "checkpoints",
        "a checkpoint does not fit its run or its neighbour",
        needs="recorded checkpoints with steps; names that tell a step, or a log with steps; or the checkpoints "
        "themselves",
        statistic="the step in the name of a checkpoint (`checkpoint-1200`, `step=1200`) against the one recorded with "
        "it, to one step; the recorded one against the end of the log, and against logged steps where four of five "
        "saves stand at one. In the files: counters of optimizer and schedule against the step of the save (2 %), and "
        "whether they go on; keys (lost, new, or renamed, by which rule), shapes and types from save "
        "to save; the same weights under two steps; tied weights that are so no longer; averages that stand still, are "
        "the weights, lie outside the hull of their past, or keep themselves three times longer than their decay says, "
        "or as many times shorter than it and any usual warm-up of it leave; "
        "counts of batches that go back",
        severity="a warning where name and record differ, and where a save lies beyond the end of the log; info where "
        "all names differ by one factor (another unit), and for saves between logged steps. In the files a warning; "
        "info for whole factors between counters (a schedule stepped several times a step is a warning, unless "
        "processes or batches of an update explain it, or if it has ended), for types, for keys renamed in a "
        "series whose weights went on, and for what another "
        "key still holds",
        causes=(
            "the name is made of another counter than the step that is recorded",
            "the checkpoint is of another run in the same folder, or of an attempt whose log is gone",
            "the checkpoint was copied, or renamed, after it was saved",
        ),
        suggestions=(
            "compare the step inside the checkpoint with both",
            "make the name of the step that is logged",
            "do not resume from it before its origin is known",
        ),
        reference="the event-stream contract (docs/event-stream.md), record `checkpoint` in section Kinds; averages: "
        "B. Polyak, A. Juditsky, 'Acceleration of Stochastic Approximation by Averaging' (1992)",
    ),
    "weight-drift": Kind(
        "checkpoints",
        "weights moved further than they should",
        needs="three intervals between saves; two saves with an Adam optimizer and a learning rate; for norms out of "
        "line four layers named alike",
        statistic="the change of a layer by its norm, over that of the median layer, against the largest of the two "
        "intervals before and the two behind, the first interval aside; the same of all layers together, steps and "
        "learning rate considered; the largest change of one weight over learning rate x steps, which Adam keeps "
        "within 3.2 with its usual numbers; the norm of a layer against that of its like",
        severity="a warning where a layer changed by 10 % of its norm or more (the whole model by 30 %); info for "
        "norms out of line in one save",
        limit=Limit(
            "times",
            10.0,
            "times what the past, the like, or the optimizer explain",
            "three times what Adam can reach; layers of healthy trainings stay within five times their own past",
            lowest=1.0,
        ),
        causes=(
            "the layer was made anew, loaded from elsewhere, or unfrozen",
            "its learning rate or its gradient was far larger in this stretch",
            "the weights were changed by something else than the optimizer",
        ),
        suggestions=(
            "look at what happened between the two saves: a resume, a load, a change of phase",
            "compare loss and gradient norm of that stretch with those before",
            "go back to the save before it if the loss leapt there",
        ),
        reference="D. Kingma, J. Ba, 'Adam' (ICLR 2015), section 2.1; A. Karpathy, CS231n notes, 'Neural Networks Part "
        "3', ratio of weights to updates",
    ),
}
