"""Kinds of the family generalisation: train against eval."""

from __future__ import annotations

from analysis.kinds.kind import Kind, Limit

__all__ = ["KINDS"]

KINDS = {
    "overfitting": Kind(
        "generalisation",
        "the eval loss rises while the train loss falls",
        needs="a loss or accuracy on both train and eval, with 5 evaluations or more",
        statistic="how much worse the last evaluations are than the best level, as a share, where that is beyond the "
        "noise "
        "of block means (Student's t), rises steadily (slope of Theil and Sen), is kept to the end, and train goes on "
        "improving or stands at its floor",
        severity="info; a warning from two and a half times the limit (5 %), critical from twelve and a half (25 %)",
        limit=Limit(
            "rise",
            0.02,
            "share of the best level",
            "a definition: a smaller rise changes no choice of a checkpoint; what noise reaches is asked besides",
        ),
        causes=(
            "the model memorises the training data",
            "training goes on too long (the share of it after the best)",
            "the learning rate is still high after the best point, or there is too little regularisation",
        ),
        suggestions=(
            "use the checkpoint nearest the best evaluation",
            "stop early on the eval loss",
            "more data or augmentation, more dropout or weight decay, a smaller model, or a lower learning rate",
        ),
        reference="L. Prechelt, 'Early Stopping - But When?' (1998)",
    ),
    "train-eval-gap": Kind(
        "generalisation",
        "train and eval loss lie far apart",
        needs="a loss or accuracy on both train and eval, with 5 evaluations or more",
        statistic="eval / train over the last third of the evaluations; of accuracies their difference, of which 0.1 "
        "counts "
        "as 1.5 and 0.2 as 2",
        severity="info; a warning where eval lies above train by a quarter of the first train loss (of accuracies: 0.4 "
        "apart), or by a twentieth where both have settled, train far above nothing, so that it is no memorising; info "
        "where a curriculum or components that eval lacks change what train adds up",
        limit=Limit(
            "gap",
            1.5,
            "eval / train; of accuracies 1 + 5 x their difference",
            "a definition: dropout and augmentation explain some 10 to 30 %",
            lowest=1.0,
        ),
        causes=(
            "the model memorises what does not carry over: little data, noisy labels (train low, eval high)",
            "eval data differs from the training data",
            "the training loss is small by construction (teacher forcing, masked positions)",
        ),
        suggestions=(
            "check that train and eval are prepared by the same code",
            "more data, augmentation or regularisation",
            "evaluate on a part of the training distribution that was held out",
        ),
        reference="C. Zhang et al., 'Understanding deep learning requires rethinking generalization' (ICLR 2017)",
    ),
    "train-eval-scale-mismatch": Kind(
        "generalisation",
        "train and eval loss are not on the same scale",
        needs="a loss on both train and eval, with 5 evaluations or more, of which train fell by a fifth",
        statistic="a constant factor between the two (median of the logarithm of eval / train, with its 95 % "
        "interval) that "
        "stands from the first evaluation on; from two thirds of the limit on where it is a whole number; a constant "
        "offset of a quarter of the first train loss; percent against fractions",
        severity="a warning; info where train is twice eval, as mixing and augmentation make it",
        limit=Limit(
            "times",
            3.0,
            "times larger or smaller",
            "a definition: dropout, augmentation or a harder eval set make no constant factor of 3 from the start",
            lowest=1.0,
        ),
        causes=(
            "gradient accumulation or devices: one side adds up as many losses (whole factor)",
            "one side is summed over batches, tokens or devices instead of averaged (constant factor)",
            "a loss component is missing on one side (offset)",
        ),
        suggestions=(
            "evaluate on a training batch with the evaluation code: both losses must agree in eval mode",
            "compare how the two losses are reduced (mean or sum) and which components they hold",
        ),
        reference="PyTorch, torch.nn.CrossEntropyLoss, parameter reduction (sum or mean)",
    ),
    "suspiciously-good": Kind(
        "generalisation",
        "eval is better than it has any right to be",
        needs="a loss or accuracy on both train and eval, with 5 evaluations or more",
        statistic="eval / train over the last half of the evaluations, of which 80 % are below the limit; accuracies "
        "of "
        "0.999 from the second evaluation on",
        severity="info; a warning from a quarter of the limit, and for accuracies",
        limit=Limit(
            "share_of_train",
            0.4,
            "share of the train loss",
            "a definition: dropout explains some 10 to 30 %, strong augmentation half",
            above=False,
            highest=0.99,
        ),
        causes=(
            "the eval set is in the training data, or the labels are in the inputs (eval far below train)",
            "the eval set is tiny or of one class",
            "train carries penalties, mixing or label smoothing that eval does not",
        ),
        suggestions=(
            "look for duplicates between the two sets and for targets among the inputs",
            "evaluate an untrained model: its metric must be at chance",
            "log train in eval mode once, without dropout and augmentation",
        ),
        reference="S. Kapoor, A. Narayanan, 'Leakage and the reproducibility crisis in machine-learning-based science' "
        "(Patterns, 2023)",
    ),
}
