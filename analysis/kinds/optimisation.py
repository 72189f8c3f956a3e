"""Kinds of the family optimisation: how the loss falls, and what gradients, learning rate and weights do."""

from __future__ import annotations

from analysis.kinds.kind import Kind, Limit

__all__ = ["KINDS"]

KINDS = {
    "loss-spike": Kind(
        "optimisation",
        "the loss leaps above its trend",
        needs="a loss of 12 rows or more; grad_norm and learning rate say why",
        statistic="distance from the running median on the logarithm, in local spreads (1.4826 MAD), beyond what the "
        "tail of the run's own residuals allows once in a hundred runs; or twice the level where nothing else comes "
        "near; or means of 5 and 20 rows. Confirmed from both sides of it",
        severity="a warning; info for a component beside a total. Evidence says how it recovered: fast (within 5 "
        "rows), slowly, or never",
        limit=Limit(
            "times", 1.1, "times what was expected", "definition: a tenth of the level is worth a word", lowest=1.0
        ),
        causes=(
            "a gradient norm that peaked there",
            "a learning rate that rose, or a loss weight that changed",
            "one step alone, and back at the next: a single bad batch",
        ),
        suggestions=(
            "look at the batch of that step",
            "clip gradients to their usual norm",
            "lower the learning rate or lengthen its warmup",
        ),
        reference="A. Siffer et al., 'Anomaly Detection in Streams with Extreme Value Theory' (KDD 2017), on robust "
        "residuals",
    ),
    "divergence": Kind(
        "optimisation",
        "the loss climbs away and does not come back",
        needs="a training loss of 30 rows or more, or a score of 16 (accuracy, BLEU, error rate, reward)",
        statistic="as level-shift, the climb going on to the end of the log; or a leap out of the very first rows to "
        "twice them for good. Scores: half of what was gained is lost little by little",
        severity="critical; a warning for a score that keeps a fifth of its gain; info where a planned change explains "
        "less than twice the level, and for a component beside a total",
        limit=Limit(
            "times",
            1.3,
            "times the best level",
            "calibrated: the levels of healthy runs of every noise stay below (tests/analysis/test_anomalies_rates.py)",
            lowest=1.0,
        ),
        causes=(
            "a gradient norm that grew there",
            "a learning rate that rose",
            "the run was resumed, and state was not restored",
        ),
        suggestions=(
            "resume from a checkpoint before the first step named",
            "compare configuration and data on both sides of it",
            "lower the learning rate",
        ),
        reference="A. Chowdhery et al., 'PaLM' (2022), sec. 5.1; S. Bekman, 'Machine Learning Engineering', loss "
        "patterns",
    ),
    "plateau": Kind(
        "optimisation",
        "the loss stops improving long before the end",
        needs="a training loss of 30 rows or more (90 for a stop in its midst); the learning rate and param_norm, the "
        "norm of all weights, say more",
        statistic="48 block means of the logarithm with their error. Never improved: neither the first rows nor any "
        "later stretch stand out, and the line through all of it leaves room for the limit at most. Stopped: drops "
        "over equal stretches of any sum of decaying parts satisfy d3 >= d2 * d2 / d1; after a steady fall, a quarter "
        "of that or less came, six standard errors short, and the loss stands to the end, for a fifth of the run at "
        "least",
        severity="critical where the learning rate is 0 throughout; a warning where the loss never improved, stopped "
        "in the middle of its fall, or stands for a tenth of the run or more at a learning rate of nothing or at "
        "weights whose norm is the same to its last digit; info where it levelled off smoothly, set out late, or "
        "began with trained weights, where the learning rate decayed meanwhile, and in GANs",
        limit=Limit(
            "improvement_at_most",
            0.03,
            "of the level, by which it may have improved at most",
            "definition: trainings improve their loss by tens of per cent; 3 % is the least that a glance can see",
            above=False,
            highest=1.0,
        ),
        causes=(
            "the learning rate is 0, or its schedule ended before the training",
            "weights are not updated (frozen, detached, not given to the optimiser, steps skipped), or units have died",
            "the model guesses: the loss stands at the logarithm of the number of classes",
            "there is nothing left to learn: trained weights, or a floor that these data set",
        ),
        suggestions=(
            "overfit a single batch: if the loss does not fall there either, the fault is in the code",
            "check that the optimiser holds the parameters, that they require gradients, and that it steps",
            "look at the learning rate and at skipped steps from that step on",
        ),
        reference="convexity of moments: W. Feller, 'An Introduction to Probability Theory and Its Applications' II, "
        "ch. VII.3; dead trainings: A. Karpathy, 'A Recipe for Training Neural Networks' (2019)",
    ),
    "oscillation": Kind(
        "optimisation",
        "the loss swings regularly instead of settling",
        needs="a training loss of 80 rows or more, all positive, and ten cycles (or four that hold most of its motion)",
        statistic="the clearest peak of the spectrum of the detrended logarithm against red noise, averaged over 1, 3 "
        "and 9 frequencies and held against the octaves beside it; by chance less than once in 10,000 series after "
        "correction for all frequencies, and a quarter of the variance; of four to ten cycles, 85 to 52 % of it. "
        "Judged is the way from trough to crest, and the first step where a wave explains the loss better than a line",
        severity="a warning; info where epochs, cycles of the learning rate or evaluations recur as often, where each "
        "cycle begins with a leap, and in GANs",
        limit=Limit("swing", 0.1, "of the level, trough to crest", "definition: swings that a plot of the loss shows"),
        causes=(
            "the learning rate is at the edge of what this loss allows, so that steps overshoot",
            "data that come round in a fixed order",
            "a learning rate that goes round",
        ),
        suggestions=(
            "halve the learning rate: swings at the edge of stability go with it",
            "lower the momentum (or beta1), or enlarge the batch",
            "shuffle the data anew in every epoch",
        ),
        reference="M. Schulz and M. Mudelsee, 'REDFIT', Computers & Geosciences 28 (2002); J. Cohen et al., 'Gradient "
        "Descent on Neural Networks Typically Occurs at the Edge of Stability' (ICLR 2021)",
    ),
    "exploding-gradient": Kind(
        "optimisation",
        "the gradient norm grows by orders of magnitude",
        needs="5 gradient norms or more; the loss beside them says how much to ask",
        statistic="the rise of the norm's level (median of 7 rows) above its own past, and above what noise reaches in "
        "that many rows: by the limit where the loss rises with it, 3 times as much where the loss stands, 32 times as "
        "much where it is not known. A leap within 21 rows above all levels before, none of which comes back, counts "
        "by the limit also where the loss stands, or falls no faster for it than before. A layer's own norm has to "
        "rise ten times as far as that of all, and to come out above it or harm the loss",
        severity="critical where norm and loss stay high to the end; a warning where one of them comes back, and for "
        "a leap that stays; else info while the loss falls, and for what came back without a rise of the loss",
        limit=Limit(
            "times",
            10.0**1.5,
            "times its own past, while the loss rises",
            "calibrated: norms of healthy runs rise several times over late in training (A. Defazio, arXiv 2506.02285)",
            lowest=1.0,
        ),
        causes=(
            "the learning rate is too high for this stretch (the rate at that step)",
            "a layer is unstable (the one whose norm set out first)",
            "steps as long as these gradients: no clipping is logged",
        ),
        suggestions=(
            "clip gradients (a norm of 1.0 is common), or lower the limit that is set",
            "lower the learning rate, or lengthen the warmup",
            "look at the batches just before the first step named",
            "resume from the last checkpoint before it",
        ),
        reference="R. Pascanu, T. Mikolov, Y. Bengio, 'On the difficulty of training recurrent neural networks' (2013)",
    ),
    "vanishing-gradient": Kind(
        "optimisation",
        "the gradient norm shrinks to nothing",
        needs="5 gradient norms or more with a loss beside them; norms by layer for early against late layers",
        statistic="the fall of the norm's level while the loss has not fallen by 5 %; norms of exactly 0, or below "
        "1e-7; early layers of a stack that lie below the late ones all along (in each twelfth of the log), or for a "
        "third of it from the start on while the loss does not fall by 5 % beyond its noise",
        severity="critical where the loss never fell; a warning where it rose as the norm went, and for early layers "
        "that stand still, or beside a loss that does not fall and no sign that they move, or lie ten thousandfold "
        "below the last while the loss has not fallen, or not halved with no such sign; info for early layers of a "
        "stack that learns all the same",
        limit=Limit(
            "times",
            1000.0,
            "times smaller than it was, or than in late layers",
            "AUTOTRAINER's ratio of norms (Zhang et al., ICSE 2021)",
            lowest=1.0,
        ),
        causes=(
            "activations or the loss saturated",
            "the loss no longer depends on any parameter: every path to them is cut",
            "each of many layers passes on a part of the gradient only",
        ),
        suggestions=(
            "look at what saturated: activations, gates, a softmax or a loss that is cut off (clamp, max)",
            "replace sigmoid or tanh by ReLU or GELU, normalise between the layers, or add residual connections",
            "see whether the loss still depends on the parameters: detach, no_grad, a branch that is switched off",
            "resume from the last checkpoint before it with a lower learning rate",
        ),
        reference="X. Glorot, Y. Bengio, 'Understanding the difficulty of training deep feedforward networks' (2010)",
    ),
    "clipping": Kind(
        "optimisation",
        "nearly every step is clipped, or the gradient norm was logged after it was",
        needs="over 10 records a clip rate, or a gradient norm beside what clipping left of it or a stated limit "
        "(`clip_norm` of the plan); or a norm that stands at a round limit",
        statistic="the share of the steps in the later half that were clipped; the share of norms that equal their "
        "maximum",
        severity="info; a warning where the usual norm is 100 times what clipping leaves of it",
        limit=Limit(
            "share",
            0.95,
            "share of the steps in the later half",
            "a definition: clipping is then the rule; below, it is common in fine-tuning, and Adam hardly feels it",
            highest=1.0,
        ),
        causes=("the limit is below nearly every norm", "the norm was read after gradients were clipped"),
        suggestions=(
            "set the limit near the 90 % quantile of the norm",
            "find out why the norm is so large: inputs, loss summed instead of averaged, initialisation",
            "log what clip_grad_norm_ returns: the norm as it was before",
        ),
        reference="R. Pascanu, T. Mikolov, Y. Bengio, 'On the difficulty of training recurrent neural networks' (2013)",
    ),
    "amp-collapse": Kind(
        "optimisation",
        "the loss scale of mixed precision falls to nothing, or steps are skipped again and again",
        needs="a loss scale, or a count of skipped steps, over 3 records",
        statistic="a scale that ends at 1 or below after ten halvings, or falls by as many after a rest; the share "
        "of the later half's steps that were skipped, ten at least",
        severity="a warning; critical where the scale falls a thousandfold further, half of the steps are skipped, or "
        "the loss ends infinite",
        limit=Limit(
            "skipped_share",
            0.05,
            "share of the steps in the later half",
            "a hundred times what a scaler skips in health: it doubles every 2,000 steps, and the next step overflows "
            "(PyTorch, GradScaler)",
            highest=1.0,
        ),
        causes=(
            "gradients overflow at any scale",
            "an operation overflows float16 in forward or backward (nonfinite_grads by layer would tell where)",
        ),
        suggestions=(
            "train in bfloat16, which needs no loss scale",
            "find the first layer whose gradient is not finite (at.watch records nonfinite_grads by layer)",
            "lower the learning rate, and clip gradients after unscale_",
            "compute softmax, norms and losses in float32",
        ),
        reference="P. Micikevicius et al., 'Mixed Precision Training' (ICLR 2018)",
    ),
    "update-ratio": Kind(
        "optimisation",
        "steps change the weights far more or far less than usual",
        needs="an update ratio (change of the weights by their size) over 5 observations, as at.watch records it",
        statistic="the median ratio against 1e-3, and that of each layer against the median of all",
        severity="info",
        limit=Limit(
            "times_off",
            100.0,
            "times more or less than 1e-3, or than the median layer",
            "two orders of magnitude are where UMLAUT and DeepDiagnosis begin to speak",
            lowest=1.0,
        ),
        causes=(
            "the learning rate is too high or too low by the factor named",
            "the layer named has weights, gradients or a learning rate of another size than the others",
        ),
        suggestions=(
            "compare with a run that learns well",
            "change the learning rate by the factor named, or by group",
        ),
        reference="A. Karpathy, CS231n notes, 'Neural Networks Part 3', ratio of weights to updates",
    ),
    "lr-schedule": Kind(
        "optimisation",
        "the learning rate does not follow its plan, or is wrong on its face",
        needs="a learning rate with 2 values or more; a plan that names its schedule says more",
        statistic="the planned schedule at every logged step, and how far the observed rate lies outside what it "
        "gives within one step (counts from 0 or 1, rates written before or after the scheduler is stepped) and within "
        "the printed digits: the largest distance. Where two neighbouring records reach it, the plan is changed by one "
        "number at a time (stepped k times a step or once an epoch, peak, warm-up, end, minimum, period, milestones, "
        "begun again at a resume), and the simplest change that gives 98 % of the rows is named. Without a plan: 0 or "
        "less than 1e-20 in nine records of ten or for the last tenth of the run, negative, the beginning again after "
        "a resume, a cosine that climbs again beyond its end",
        severity="critical at 0 all along while the loss does not fall, from 10 times the planned peak on, and for "
        "negative rates; else a warning; info where another group of parameters follows the plan, where nothing "
        "explains a plan that was read from a configuration, for frozen groups, on less than 1 % of the records, where "
        "a single record is below 10 times the peak, and where the schedule is late by steps that overflows skipped",
        limit=Limit(
            "deviation",
            0.1,
            "of the planned peak (on its face: of the observed peak, or of the run)",
            "definition: schedules have no noise, so that any lasting difference is real; a tenth of the peak is the "
            "end that decays usually have instead of 0, and less changes a training little",
        ),
        causes=(
            "the scheduler is stepped twice a step, or once an epoch where its lengths are steps",
            "its lengths were computed from another number of steps (processes, batch, accumulation, epochs)",
            "its state was not restored on a resume",
            "another base rate, warm-up or minimum was set than the plan has",
        ),
        suggestions=(
            "call scheduler.step() in one place, once an optimiser step, and count its calls for ten steps",
            "save and load scheduler.state_dict() with the optimizer's",
            "compare the scheduler's arguments with the plan",
        ),
        reference="torch.optim.lr_scheduler and transformers.get_scheduler (formulas); cyclic and restarted rates: "
        "L. Smith, arXiv:1506.01186, I. Loshchilov and F. Hutter, arXiv:1608.03983",
    ),
    "dead-units": Kind(
        "optimisation",
        "units that never respond",
        needs="shares of dead units over more than 5 observations, as at.watch records them; or checkpoints",
        statistic="the median share of a layer's units without any gradient in the last third of the observations. In "
        "checkpoints the share of a matrix's rows that are 0 with their bias, whose moments are 0 or have faded (Adam: "
        "no gradient in 200 steps), or that from save to save do not change, or only shrink, all by one factor as "
        "weight decay has it, while the others learn; tables of embeddings and of classes, and pruned layers, aside",
        severity="info from the limit on; a warning from three of eight units, critical from nine of ten (both move "
        "with the limit)",
        limit=Limit(
            "share",
            0.2,
            "share of a layer's units",
            "it warns at two fifths, the share that the CS231n notes name (three of eight in a small layer; Amazon "
            "SageMaker Debugger's rule DeadRelu speaks at half); a fifth is worth a word",
            highest=1.0,
        ),
        causes=(
            "its ReLUs were pushed below zero by a large step (the learning rate at that step)",
            "initialisation, or the first steps (dead since the first count)",
            "nothing behind the layer passes a gradient on (all of its units)",
        ),
        suggestions=(
            "lower the learning rate, or warm it up: one large step can push a ReLU below zero for good",
            "use LeakyReLU, GELU or SiLU, or He initialisation with small positive biases",
            "normalise the inputs of the layer",
        ),
        reference="L. Lu, Y. Shin, Y. Su, G. E. Karniadakis, 'Dying ReLU and Initialization' (arXiv 1903.06733); "
        "I. Loshchilov, F. Hutter, 'Decoupled Weight Decay Regularization' (ICLR 2019)",
    ),
    "frozen-layer": Kind(
        "optimisation",
        "parameters that should train do not change",
        needs="update ratios or gradient norms of two layers or more, or two checkpoints; the plan says which are "
        "meant to stand still",
        statistic="the observations at the end at which a layer's update is exactly 0 while others move, less three "
        "times its longest rest before. In checkpoints the steps over which no bit of a parameter changes, or in which "
        "its moments stay 0, or over which a whole matrix keeps its direction and only shrinks, as weight decay has it",
        severity="critical where the plan says that the layer trains (or freezes one that moves); a warning; info for "
        "parameters that never got a gradient, which no loss uses, and in checkpoints for the first layers, whole "
        "parts and half of a model, which are frozen on purpose",
        limit=Limit(
            "rows_still",
            5.0,
            "observations",
            "a definition: fewer prove nothing; layers that are dropped at random are asked three times their rest",
        ),
        causes=(
            "the loss does not depend on the layer: unused in forward, detached, or behind a branch that is off",
            "what lies behind it passes nothing on: dead ReLUs, a multiplication by 0, a saturated gate",
            "the learning rate of its group is 0, or updates are below the resolution of the weights' precision",
        ),
        suggestions=(
            "set requires_grad to False, or leave the layer out of the optimizer, if that is meant",
            "else follow forward from the layer to the loss: detach, no_grad, an output that nobody reads",
            "print the optimizer's groups: which learning rate does the layer have",
        ),
        reference="PyTorch, DistributedDataParallel, find_unused_parameters: parameters that no loss depends on",
    ),
}
