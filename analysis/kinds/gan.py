"""Kinds of the family GAN: the two players of a GAN and the variety of their samples."""

from __future__ import annotations

from analysis.kinds.kind import Kind, Limit

__all__ = ["KINDS"]

KINDS = {
    "mode-collapse": Kind(
        "GAN",
        "the generator's outputs lose their diversity",
        needs="a series of the diversity of samples with 20 points or more",
        statistic="the last level as a share of the best that was held (medians of tenths, without the first), where "
        "it "
        "stays under half of that to the end",
        severity="a warning; critical below a third of the limit (10 %)",
        limit=Limit(
            "share",
            0.3,
            "share of the level that was held",
            "a definition: diversity swings in a healthy game, and comes back above half",
            above=False,
            highest=1.0,
        ),
        causes=(
            "the generator runs ahead of the discriminator: too many updates or too high a learning rate",
            "nothing in the loss rewards variety",
        ),
        suggestions=(
            "go back to a checkpoint before the fall",
            "lower the generator's learning rate or its updates per discriminator update",
            "gradient penalty, minibatch discrimination, or a diversity term; check with samples of one batch",
        ),
        reference="T. Salimans et al., 'Improved Techniques for Training GANs' (2016)",
    ),
    "discriminator-dominance": Kind(
        "GAN",
        "the discriminator wins outright and the generator learns nothing",
        needs="losses of generator and discriminator with 20 points or more, of a family that has an equilibrium",
        statistic="the discriminator's loss as a share of its equilibrium (BCE 2 ln 2, LSGAN 0.5, hinge 2, or half "
        "of it), "
        "held to the end for a fifth of the run",
        severity="info; a warning where the generator's loss climbed by half or D(real) - D(fake) is above 0.9; "
        "critical "
        "where that loss tripled and D's is a fifth of the limit",
        limit=Limit(
            "share_of_balance",
            0.1,
            "share of the equilibrium",
            "calibrated: healthy discriminators work at a fifth of their equilibrium and above",
            above=False,
            highest=1.0,
        ),
        causes=(
            "the discriminator learns faster than the generator (D near 0, G climbing)",
            "the discriminator memorises a small data set, or tells fake by a trivial cue (range, silence, padding)",
        ),
        suggestions=(
            "lower the discriminator's learning rate or update it less often",
            "instance noise, one-sided label smoothing, spectral norm or a gradient penalty",
            "check that real and fake samples pass the same preprocessing",
        ),
        reference="I. Goodfellow et al., 'Generative Adversarial Nets' (2014); X. Mao et al., LSGAN (2017)",
    ),
    "generator-dominance": Kind(
        "GAN",
        "the generator fools the discriminator outright",
        needs="losses of generator and discriminator with 20 points or more, of a family whose generator has an "
        "equilibrium",
        statistic="the generator's loss as a share of its equilibrium, held to the end for a fifth of the run while "
        "the "
        "discriminator's lies a fifth above its own",
        severity="a warning; critical where the discriminator's loss is three times its equilibrium",
        limit=Limit(
            "share_of_balance",
            0.1,
            "share of the equilibrium",
            "as for the discriminator",
            above=False,
            highest=1.0,
        ),
        causes=(
            "the discriminator is too weak or hardly updated (its loss above balance)",
            "labels of real and fake are swapped, or the discriminator's gradients do not reach it",
        ),
        suggestions=(
            "raise the discriminator's learning rate, capacity or updates",
            "check that the discriminator's parameters are in its optimiser and change",
        ),
        reference="I. Goodfellow et al., 'Generative Adversarial Nets' (2014)",
    ),
}
