"""A finding of each kind, with the keys of its evidence: tests/analysis/examples_of_kinds.py writes this."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["EXAMPLES", "Example"]


@dataclass(frozen=True, slots=True)
class Example:
    """A finding on a run in which its kind was planted: severity, message, and the keys of its evidence in a row."""

    severity: str
    message: str
    evidence: str


EXAMPLES: Mapping[str, Example] = {
    "truncated-stream": Example(
        "warning",
        "4 pieces of the log could not be read, 9.1% of its records; the first is r.jsonl:41: cut",
        "rejects cut read share_lost first_reason",
    ),
    "missing-steps": Example(
        "warning",
        "40 of 2000 steps that a record every 1 step promises are missing, the largest hole from 143 to 149",
        "missing expected share_missing limit every holes largest_hole series parts",
    ),
    "step-regression": Example(
        "warning",
        "the step goes back 1 time within one attempt, first from 99 to 60",
        "times from_step to_step series parts",
    ),
    "clock-skew": Example(
        "warning",
        "the clock goes back 1 times, at most by 5 s after step 99",
        "times largest_s back_s limit series parts",
    ),
    "stall": Example(
        "warning",
        "the log stood still for 8.33 min after step 149, where a record comes every 10 s; 1 such pauses "
        "take 14% of the time",
        "stalls longest_s times_usual limit usual_s lost_s share_of_time parts",
    ),
    "unfinished-run": Example(
        "warning",
        "the log ends at step 599 of 1,000 planned (60% done, manifest.json: max_steps)",
        "share_done limit planned reached unit source record_every end_status error last_record",
    ),
    "overlong-run": Example(
        "warning",
        "the log goes on to step 1,499, 1.5 times the 1,000 planned (manifest.json: max_steps)",
        "share_done limit planned reached unit source accumulation",
    ),
    "checkpoint-mismatch": Example(
        "warning",
        "checkpoint-1000 was saved at step 600, and its name says 1,000",
        "differing checkpoints named_step saved_step path",
    ),
    "source-disagreement": Example(
        "warning",
        "loss: 50 of 1,000 numbers differ between the logs of the run, first at step 3 (1 and, in the csv log, 2)",
        "compared differing share limit value other_value ratio shift hidden log other_log further_series",
    ),
    "rank-missing": Example(
        "warning",
        "rank 2 left no log: the ranks go up to 3, and 3 logged",
        "missing logged world_size world_size_from first_missing",
    ),
    "rank-divergence": Example(
        "warning",
        "loss of rank 2 lies +40% off the others from step 120",
        "how nature rank ranks_apart ranks difference limit common_steps steps_apart from_the_beginning",
    ),
    "repeated-data": Example(
        "warning",
        "after the resume at step 260 the losses go up and down as from step 0 to 159 (correlation 0.95 "
        "over 160 records; chance stays below 0.33): this data was fed again",
        "resumed_at repeats_from repeats_to lag_steps correlation correlation_by_chance records_compared "
        "lags_tried loss_before loss_after",
    ),
    "hidden-non-finite": Example(
        "warning",
        "the loss reads exactly 0 in 40 of 400 rows where the gradient norm is NaN, from step 360 to the "
        "end: the loss itself was not finite there, and the log hides it",
        "rows zero_rows repeated_rows partly_filtered_rows steps_per_row last_sound_step",
    ),
    "stale-values": Example(
        "warning",
        "eval loss stands on 400 rows but was evaluated 4 times (every 100th row); the other 396 rows "
        "repeat the last value",
        "split rows evaluations repeats rows_per_evaluation regular metrics metrics_that_change_together",
    ),
    "sampled-series": Example(
        "info",
        "loss holds exactly 500 points, spread like a random sample of about 4,988 (one every step): 90% "
        "of what was logged is not here, and a spike between the points would not be seen",
        "points logged_about share_missing steps_per_record largest_gap_steps series reservoir_replayed",
    ),
    "micro-batch-steps": Example(
        "info",
        "lr changes only at every 4th row (99 times, every 4 steps): gradient_accumulation_steps is 4: "
        "steps count micro-batches, and 4 of them make one update",
        "steps_per_update rows_per_update updates_seen accumulation_configured",
    ),
    "epoch-only": Example(
        "info",
        "the log has one value an epoch (30 in all) and nothing finer: there are no steps; a spike, a "
        "NaN that passed or a stall inside an epoch cannot be seen",
        "epochs epochs_per_row rows steps_are_epochs",
    ),
    "non-finite": Example(
        "critical",
        "loss is NaN at step 300, from there to the end of the log",
        "split rank count nan infinite n stays first_metric metrics",
    ),
    "outlier": Example(
        "info",
        "1 of 400 values of step_time lie outside their bounds; the farthest is 5.804 at step 200, where "
        "0.9883 was due",
        "split count n value expected lower upper score threshold window method scale",
    ),
    "level-shift": Example(
        "critical",
        "loss jumped from 0.8471 to 1.827 at step 250, 2.16 times as high, and stayed there to the end",
        "split rank value expected lower upper factor times limit score threshold window n rows "
        "recovery_steps recovery scale also_in",
    ),
    "loss-spike": Example(
        "warning",
        "loss leapt to 4.058 at step 250 where 0.7988 was due, 5.08 times as high, and was back after 2 steps",
        "split rank value expected lower upper factor times limit score threshold window n rows "
        "recovery_steps recovery scale also_in",
    ),
    "divergence": Example(
        "critical",
        "loss climbed from 0.8295 to 5.578 from step 246 to the end, 6.72 times as high",
        "split rank value expected lower upper factor times limit score threshold window n rows "
        "recovery_steps recovery scale also_in",
    ),
    "plateau": Example(
        "warning",
        "loss never improved: it stays about 2.298 over 500 rows, and its noise leaves room for 0.94 % at most",
        "split rank improvement_at_most limit n shape improvement level lr_zero",
    ),
    "oscillation": Example(
        "warning",
        "loss swings by 62 % of its level every 12.3 steps from step 0 to 399; that is 97 % of what "
        "moves it besides its trend",
        "split rank swing limit period_rows period_steps share chance cycles sawtooth known n",
    ),
    "variance-shift": Example(
        "warning",
        "loss becomes 4 times noisier at step 300 and stays so: its rows lie 2.3 % from their neighbours "
        "before, 9 % after",
        "split rank factor limit before after score known n",
    ),
    "exploding-gradient": Example(
        "critical",
        "the gradient norm rose from 0.997 to 59.5, 60 times its own past, from step 204 on; the loss rose with it",
        "model layer low high times limit decades lasts then_not_finite loss loss_before loss_after "
        "first_layer first_layer_step split",
    ),
    "vanishing-gradient": Example(
        "critical",
        "the gradient norm fell from 1.03 to 0.000251, by 3.6 orders of magnitude, while the loss did not fall",
        "model layer high low times limit decades loss_before loss_after split",
    ),
    "dead-units": Example(
        "warning",
        "80% of the units of fc1 are dead from the start",
        "model layer share limit layers observations zero_grads split",
    ),
    "frozen-layer": Example(
        "warning",
        "b: frozen since step 52; gets no gradient at all",
        "model layer layers count gradient moved_before observations rows_still limit split",
    ),
    "clipping": Example(
        "warning",
        "100% of the steps in the later half were clipped; the norm is 334 where 1 is left of it",
        "model share share_limit limit norm times_limit norm_p10 norm_p90 split",
    ),
    "amp-collapse": Example(
        "warning",
        "10% of the later half's steps (200) were skipped because a gradient was not finite",
        "highest_scale last_scale skipped_share limit skipped split",
    ),
    "update-ratio": Example(
        "info",
        "a step changes the weights by 0.3 of their size, far more than the usual 0.001",
        "model update_ratio usual times_off limit layers_apart layer layers_median split",
    ),
    "lr-schedule": Example(
        "warning",
        "lr leaves its planned linear schedule: the scheduler is stepped twice a step: the schedule runs "
        "2 times as fast, and every rate is 0.3 times the planned one (from step 3 on, by up to 72% of "
        "the peak 0.001, in 98% of 200 records)",
        "deviation limit lasting share explanation number factor explained observed_rate planned_rate "
        "observed_peak planned_peak planned observed",
    ),
    "overfitting": Example(
        "critical",
        "eval loss was best at step 194 (1) and ended 30% worse, while train went on falling (68%); 51% "
        "of the training came after the best",
        "best_step best_value clearly_worse_from end_value rise limit noise_bar critical_from "
        "train_change slope_after_best slope_low slope_high share_after_best evals",
    ),
    "train-eval-gap": Example(
        "warning",
        "eval loss ends far from train: 1.508 against 0.02966 (50.9 times), over the last third; train began at 1.914",
        "eval train ratio gap limit train_start settled gap_trend gap_trend_low gap_trend_high",
    ),
    "train-eval-scale-mismatch": Example(
        "warning",
        "eval loss is 3.399 times larger than train all along, from the first eval on (95 % interval 3.399 to 3.399)",
        "form size times limit low high whole_factor evals",
    ),
    "suspiciously-good": Example(
        "warning",
        "eval loss is 0.05 of train's over the last half (0.0524 against 1.05); dropout and augmentation explain less",
        "eval train share_of_train limit late_ratio evals",
    ),
    "loss-sum-mismatch": Example(
        "warning",
        "the components do not add up to the total in 40 of 40 records (typically 0.5 % off; at step 12 "
        "total 1.64376, sum of components 1.63558): the total is 1.005 times the sum",
        "records_off records_judged share_off relative_difference limit largest_difference tolerance "
        "explanation number",
    ),
    "loss-display-mismatch": Example(
        "warning",
        "the displayed loss differs from the total by 0.00643069: 1.29257 against 1.28614 at step 0 "
        "(typically 0.5 %, in 40 of 40 records)",
        "displayed total difference median_difference relative_difference limit records_off records_judged",
    ),
    "weight-not-applied": Example(
        "warning",
        "kd: 1.03924 enters, raw x weight is 2.03772 x 0.5 = 1.01886 at step 0; 40 of 40 records are "
        "off, typically by 2 %",
        "records_off records_judged relative_difference limit applied_weight declared_weight at_change_of_weight",
    ),
    "inactive-component": Example(
        "warning",
        "b stays out of the total in all 200 records: weight up to 0.5, but it adds 0",
        "records largest_weight planned_weight median_raw largest_printing_error",
    ),
    "curriculum-off-schedule": Example(
        "warning",
        "kd: weight 0.515 instead of 0.5 from step 0 on, 40 of 40 records differ, by up to 0.015",
        "first_observed first_planned largest_difference relative_difference limit records_off "
        "records_judged phase explanation number",
    ),
    "curriculum-bypass": Example(
        "critical",
        "b enters the total although its weight is 0: effective weight 0.100 (± 1.1e-09 at 95 %), 41 % "
        "of the total, in 300 records",
        "declared_weight effective_weight weight_low weight_high share_of_total records",
    ),
    "missing-input": Example(
        "critical",
        "required input 'input_ids' of stage 'forward' was never seen in any recorded event of that stage",
        "stage seen",
    ),
    "missing-output": Example(
        "critical",
        "required output 'logits' of stage 'forward' was never seen in any recorded event of that stage",
        "stage seen",
    ),
    "forbidden-input": Example(
        "critical",
        "forbidden input 'labels' of stage 'forward' was seen in 20 events, first at step 0; it first "
        "appeared in stage 'forward' at step 0",
        "stage seen entered_stage entered_step way last_clean_stage removed_stage splits calls calls_with_it",
    ),
    "device-mismatch": Example(
        "warning", "tensors of one batch of stage 'forward' lie on cpu, cuda:0, in 20 events", "stage devices events"
    ),
    "disabled-conditioning": Example(
        "warning",
        "input 'speaker' of stage 'forward' is disabled in 20 of 20 status reports",
        "stage reports affected statuses to_the_end_from",
    ),
    "memory-growth": Example(
        "warning",
        "host_memory_mb climbs steadily from 8,000 MB at step 0 to 10,400 MB at 299: 8,026 MB (8,020 to "
        "8,032) per 1,000 steps",
        "rank ranks_climbing ranks_measured unit level_before level_after growth_share share_limit "
        "per_1000_steps per_1000_steps_low per_1000_steps_high kendall_tau limit limit_from "
        "meets_limit_at_step planned_steps",
    ),
    "memory-overflow": Example(
        "warning",
        "host_memory_mb reached 9,950 MB, 99.5% of its limit (10,000 MB, from the series "
        "host_memory_total_mb); it stood there by the middle of the run",
        "peak usual limit share share_limit unit limit_from rank at_rest",
    ),
    "throughput-drop": Example(
        "warning",
        "training became slower from step 100 and stayed so: tokens_per_second fell from 1,001 to 699.9, "
        "70% of its speed",
        "read_from speed_before speed_after left limit left_at_the_end standard_errors records_slow records",
    ),
    "mode-collapse": Example(
        "warning",
        "diversity fell from 0.901 to 0.18 (20%) from step 120 on and stayed low",
        "held_level late_level share limit share_of_run",
    ),
    "discriminator-dominance": Example(
        "warning",
        "d_loss is 0.0692 since step 80, near 0 where balance (bce) is 1.39, while the generator loss grew 3.6 times",
        "late_level share_of_balance limit nearest_equilibrium family share_of_run generator_climb separation",
    ),
    "generator-dominance": Example(
        "warning",
        "g_loss is 0.0346 since step 80 and d_loss 3, above its balance (bce) of 1.39: the discriminator "
        "takes fake for real",
        "late_generator share_of_balance limit late_discriminator generator_equilibrium "
        "discriminator_equilibrium family separation share_of_run",
    ),
    "discriminator-idle": Example(
        "warning",
        "the discriminator never told real from fake: D(real) - D(fake) stayed within 1.2% of a guess "
        "from the first record to the last",
        "best_skill limit late_skill seen_by records gradient_norm",
    ),
    "player-imbalance": Example(
        "warning",
        "the gradient norm of generator over discriminator went from 1 to 400 and stayed there: the "
        "discriminator's gradient is 400 times smaller beside the generator's than it was",
        "ratio_change limit early_ratio late_ratio",
    ),
    "adversarial-phase": Example(
        "info",
        "g_adv_loss is exactly 0 until step 120, where the adversarial phase begins",
        "terms zero_records records began_step planned planned_unit last_step",
    ),
    "discriminator-overfitting": Example(
        "warning",
        "Loss/signs/real (r_t) is 0.95: the discriminator calls 97% of the training data real, where "
        "adaptive augmentation aims at 80%",
        "r_t limit target share_of_run",
    ),
    "embedding-collapse": Example(
        "warning",
        "embeddings lie in a narrow cone at step 100: any two vectors have a cosine of 0.999 on average, "
        "though speakers are told apart (EER 0.0%)",
        "n dim rejected mean_cosine effective_rank eer rank_floor limit",
    ),
    "low-separation": Example(
        "warning",
        "separation of speakers is low at step 100 (0.195, EER 21.2%): separation 0.195 is not above "
        "0.4; same-speaker similarity 0.195 is not above 0.7",
        "n dim rejected same_mean different_mean separation separation_low separation_high eer d_prime "
        "speakers same_limit different_limit limit",
    ),
    "mislabelled-sample": Example(
        "warning",
        "30 of 600 utterances (5.0%) lie among another speaker's at step 100; first wav/275.wav, "
        "labelled 26, like 13 (0.89 against -0.30)",
        "utterances judged share limit bar first label suggested score",
    ),
    "checkpoint-corrupt": Example(
        "critical",
        "step_600.npz (step 600): byte 7,733: the directory at the end of the zip cannot be read, the "
        "file is cut off or overwritten: File is not a zip file; no tensor could be read",
        "what save file place reason damaged_places damaged_files tensors_read",
    ),
    "checkpoint-unsafe": Example(
        "critical",
        "step_100.pt (step 100): opened with torch.load or pickle, would call posix.system with ('touch "
        "planted'); nothing was called here",
        "save file member callable calls callables what arguments",
    ),
    "checkpoint-non-finite": Example(
        "critical",
        "step_600.npz (step 600): 3 NaN in 1 of 6 tensors of the weights, first in blocks.1.up.weight (3 "
        "of 576 elements)",
        "what save role roles nan infinite share tensors tensors_of_role tensors_elsewhere first_tensor tensor_names",
    ),
    "weight-drift": Example(
        "warning",
        "blocks.1.up.weight changed by 40% of its norm from step_400.npz (step 400) to step_500.npz "
        "(step 500), 20 times more beside the other layers than before and after",
        "what layer times update_ratio update_ratio_of_others norm_before norm_after cosine layers limit "
        "save save_before",
    ),
}
