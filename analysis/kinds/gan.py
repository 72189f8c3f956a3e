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
        "stays under half of that to the end; from twice the limit on where the level was steady before (a fall of "
        "four times the range of its tenths) and stays down for a fifth of the run",
        severity="a warning; critical below a third of the limit (10 %)",
        limit=Limit(
            "share",
            0.3,
            "share of the level that was held",
            "a definition: diversity swings in a healthy game, and comes back above half; double where it was steady",
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
        "held to the end for a fifth of the run; or outputs of hinge and LSGAN twice as far apart as the loss rewards, "
        "while the generator's loss climbs",
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
        needs="losses of generator and discriminator with 20 points or more, of a family that has an equilibrium",
        statistic="the generator's loss as a share of its equilibrium (of hinge's, which has no floor, "
        "(1 - D(fake))^2), held to the end for a fifth of the run while the discriminator's lies a fifth above its own "
        "(or D(fake) above D(real) by 8 % of a perfect discriminator's distance, for as long)",
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
    "discriminator-idle": Kind(
        "GAN",
        "the discriminator has learned nothing: it never told real from fake",
        needs="D's outputs on real and on fake data, or D's loss of a family with an equilibrium, with 20 points or "
        "more, from the beginning of the training on",
        statistic="the best skill of any part of the run (blocks of 5, 5, 10, 20, ... records, their medians): D(real) "
        "- D(fake) as a share of the distance of their targets (0.5 for probabilities of BCE), or 1 - D's loss over "
        "its equilibrium. A balanced game ends there as well, but its discriminator was ahead in the beginning",
        severity="a warning by D's outputs; an info by its loss alone",
        limit=Limit(
            "best_skill",
            0.02,
            "of the distance of D's targets",
            "calibrated on trained games of three families: in their best blocks healthy discriminators are at 0.04 to "
            "0.4, idle ones at 0.015 or below",
            above=False,
            highest=1.0,
        ),
        causes=(
            "no gradient reaches the discriminator: its loss is detached, its units are dead, or it sees nothing",
            "real and fake that it is shown are alike: one of them is passed as both",
            "a gradient or drift penalty holds its outputs at one value",
        ),
        suggestions=(
            "look at one batch as the discriminator gets it: are real and fake the tensors that they should be?",
            "check that the discriminator's parameters are in its optimiser, and that nothing detaches its loss",
            "lower its gradient or drift penalty",
        ),
        reference="I. Goodfellow et al., 'Generative Adversarial Nets' (2014), section 4: D = 1/2 everywhere is both "
        "the end of the game and no game at all",
    ),
    "player-imbalance": Kind(
        "GAN",
        "the gradients of generator and discriminator drifted apart",
        needs="a gradient norm of each player, above 0, at 20 common steps or more",
        statistic="the ratio of the two norms, generator over discriminator: its median over the last fifth of the run "
        "against that over the first fifth, held to the end",
        severity="info; a warning from ten times the limit (300 times) on",
        limit=Limit(
            "ratio_change",
            30.0,
            "times",
            "calibrated on trained games of three families: the ratio of healthy ones changes by less than 5 times, "
            "that of games that one player won by up to 12 times and, where a player stands still, by 100 and more",
            lowest=1.0,
        ),
        causes=(
            "one player has won: nothing is left for the other to follow",
            "learning rates or updates of the two do not fit together",
        ),
        suggestions=(
            "change the pace of one of them, by learning rate or updates",
            "clip the larger norm, or put a gradient penalty on the discriminator",
            "look at D(real) - D(fake) at the same steps",
        ),
        reference="M. Heusel et al., 'GANs Trained by a Two Time-Scale Update Rule' (2017)",
    ),
    "adversarial-phase": Kind(
        "GAN",
        "the adversarial phase begins later, or never: its terms are exactly 0",
        needs="losses of a GAN's players, or parts of them",
        statistic="three or more records at the beginning that are exactly 0, and the first that is not; beside it the "
        "start that plan or configuration name (`disc_start`, `start_discriminator`, `adv_start`, ...)",
        severity="info; a warning where a start was planned, the log goes 5 % beyond it, and the terms are 0 to the "
        "end",
        causes=(
            "the generator is trained alone first, as is usual for vocoders and autoencoders",
            "the start is counted in another unit than the log's steps",
            "the condition that starts the phase is never true, or the weight of the term is 0",
        ),
        suggestions=(
            "look where the training loop compares its step with the start of the phase",
            "look whether the weight of the adversarial term is 0",
        ),
        reference="P. Esser et al., 'Taming Transformers for High-Resolution Image Synthesis' (2021), section 3.1; R. "
        "Yamamoto et al., 'Parallel WaveGAN' (2020), section 3.1",
    ),
    "discriminator-overfitting": Kind(
        "GAN",
        "the discriminator knows its training data by heart",
        needs="r_t, the mean sign of D's outputs on training data (`Loss/signs/real` of StyleGAN2-ADA), with 20 points "
        "or more",
        statistic="the median of r_t over the last fifth of the run, held to the end",
        severity="a warning",
        limit=Limit(
            "r_t",
            0.9,
            "mean sign",
            "Karras et al. 2020: adaptive augmentation aims at 0.6, and 1 is complete overfitting; 0.9 is 95 % of the "
            "data called real",
            lowest=-1.0,
            highest=1.0,
        ),
        causes=("the data are too few for this discriminator",),
        suggestions=(
            "adaptive augmentation of what the discriminator sees",
            "more data, a smaller discriminator, or a stronger gradient penalty",
        ),
        reference="T. Karras et al., 'Training Generative Adversarial Networks with Limited Data' (2020), section 3.1",
    ),
}
