"""Kinds of the family embeddings: how well embeddings tell labels apart."""

from __future__ import annotations

from analysis.kinds.kind import Kind, Limit

__all__ = ["KINDS"]

KINDS = {
    "embedding-collapse": Kind(
        "embeddings",
        "the embeddings fill few dimensions, or all point one way",
        needs="10 vectors or more of the last step",
        statistic="the mean cosine of all pairs; the effective rank (exp of the entropy of the singular values) "
        "against 5 % "
        "of what could be filled, 2 % without labels",
        severity="critical; a warning where a narrow cone still tells labels apart (EER below 10 %)",
        limit=Limit(
            "mean_cosine",
            0.95,
            "mean cosine of all pairs",
            "a definition: any two vectors then differ by less than 18 degrees, whatever they stand for",
            highest=1.0,
        ),
        causes=(
            "the loss is met by one constant vector (loss = margin)",
            "few directions carry everything, as with too high a learning rate",
        ),
        suggestions=(
            "go back to the last step before the collapse and lower the learning rate",
            "check that the loss sees negatives: hard-negative mining from scratch collapses often",
            "add a variance or uniformity term, or a classification head, until it holds",
        ),
        reference="O. Roy, M. Vetterli, 'The effective rank' (EUSIPCO 2007)",
    ),
    "low-separation": Kind(
        "embeddings",
        "same and different labels are hardly told apart",
        needs="10 labelled vectors or more of the last step, with two of one label",
        statistic="mean cosine of same less that of different labels, over all pairs; the two by themselves (0.7, "
        "0.3, which "
        "move with the limit)",
        severity="a warning; info where only one of the two misses its own bar",
        limit=Limit(
            "separation",
            0.4,
            "difference of mean cosines",
            "a definition of this project's founding documents (good from 0.4, excellent from 0.6)",
            above=False,
            highest=2.0,
        ),
        causes=(
            "different labels are alike: a common offset, or partial collapse",
            "samples of one label differ: content or channel leaks in",
        ),
        suggestions=(
            "look at the table by label: a few of them, or all?",
            "train longer or with a larger margin; compare with the step before",
            "if the EER is fine, set the thresholds to what this loss reaches",
        ),
        reference="L. Wan et al., 'Generalized End-to-End Loss for Speaker Verification' (ICASSP 2018)",
    ),
    "mislabelled-sample": Kind(
        "embeddings",
        "a sample lies among another label's samples",
        needs="labelled vectors of the last step, several of each label",
        statistic="the share of samples that are typical of another label and strangers at their own",
        severity="info; a warning from the limit on, three samples at least",
        limit=Limit(
            "share",
            0.01,
            "share of the samples judged",
            "a definition: public data sets carry some wrong labels, and one in a hundred is worth an afternoon",
            highest=1.0,
        ),
        causes=("wrong labels",),
        suggestions=(
            "listen to the samples in the table `mislabelled`, worst first",
            "correct or drop their labels, then train and judge again",
        ),
        reference="C. G. Northcutt, A. Athalye, J. Mueller, 'Pervasive Label Errors in Test Sets' (NeurIPS 2021)",
    ),
}
