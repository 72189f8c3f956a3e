"""What real metrics are by their names: spellings of many trainers, and false friends that resemble them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from parsers.naming.names import split_tag
from parsers.naming.role_overrides import SETTABLE
from parsers.naming.roles import ALIASES, LOSSES, ROLES, alias_of, alike, is_loss, role_of, words_of

#: Tags as trainers log them (their split is taken off first), by what they are.
NAMES: dict[str, tuple[str, ...]] = {
    "loss": (
        "loss", "Loss", "train_loss", "eval_loss", "val/loss", "train/loss_epoch", "loss/train", "training.loss",
        "TrainIterStats/loss", "TrainEpochStats/avg_loss", "EvalStats/avg_loss", "total_loss", "loss_total",
        "train/loss_total_step", "losses/total", "losses/displayed", "lm loss", "lm_loss", "lm loss value", "nll_loss",
        "iter_loss", "val_iter_loss", "train_iteration_loss", "epoch_avg_loss", "running_loss", "mean_loss",
        "loss_avg", "train/CrossEntropyLoss", "cross_entropy", "ce_loss", "CE-mean-words", "Cost", "val bpb",
        "bits_per_byte", "objective", "tracked_stats/loss", "mlm_loss", "batch_loss", "epoch_loss", "smoothed_loss",
        "logloss", "mse", "valid/mae", "elbo", "ctc_loss", "metrics/loss", "loss_ema", "global_loss",
    ),
    "component_loss": (
        "kd_loss", "loss_cls", "loss_bbox", "loss_rpn_cls", "loss_mask", "loss_objectness", "train/box_loss",
        "dfl_loss", "TrainIterStats/loss_1", "TrainIterStats/loss_mel_ce", "EvalStats/avg_loss_text_ce", "loss_kl",
        "loss_mel", "aux_loss", "z_loss", "losses/kd/raw", "losses/kd/contribution", "value_loss", "train/value_loss",
        "critic_loss", "recon_loss", "load_balancing_loss", "feature_matching_loss", "loss_soft_epoch", "memory_loss",
        "loss/feature", "loss/g/mel", "perceptual_loss", "semantic_loss", "loss_duration", "kldloss", "td_loss",
        "loss/value_avg", "loss_0", "info_nce", "decode.loss_ce", "rec_loss", "router_z_loss", "commitment_loss",
    ),
    "generator_loss": (
        "g_loss", "G_loss", "loss_g", "loss_gen", "gen_loss_total", "generator_loss", "loss/g/total", "errG", "Loss_G",
        "lossG", "g_loss_adv", "netG_loss",
    ),
    "discriminator_loss": (
        "d_loss", "loss_disc", "loss_disc_real_0", "loss_d_fake", "discriminator_loss", "loss/d/total", "errD",
        "Loss_D", "d_loss_real", "disc_loss", "dLoss",
    ),
    "policy_loss": (
        "policy_gradient_loss", "train/policy_loss", "entropy_loss", "train/ent_coef_loss", "loss/policy_avg",
        "actor_loss", "pg_loss", "loss_pi",
    ),
    "perplexity": (
        "ppl", "perplexity", "train/Perplexity", "lm_loss_ppl", "lm loss PPL", "valid_ppl",
    ),
    "accuracy": (
        "acc", "accuracy", "eval_accuracy", "accuracy/BBOX", "val/top_5_accuracy", "top1", "metrics/mAP50(B)",
        "mAP_0.5", "metrics/mAP50-95(B)", "metrics/precision(B)", "metrics/recallB", "bbox_mAP", "mIoU", "val/auroc",
        "AUC", "f1", "eval_f1", "BLEU", "bleu-detok", "rougeL", "sacrebleu", "pesq", "psnr", "ssim", "pearsonr",
        "hellaswag", "mmlu", "gsm8k", "exact_match", "win_rate", "success_rate", "Acc@1", "hits@10", "accuracy_percent",
        "rewards/accuracies", "corr", "pass@1", "dice", "chrF++", "prec1", "train_acc1", "val_f1_macro", "bbox_mAP_50",
        "decode.acc_seg", "CIDEr", "mean_iou", "d_real_acc",
    ),
    "reward": (
        "rollout/ep_rew_mean", "eval/mean_reward", "episode_reward", "reward", "rewards/margins", "rewards/chosen",
        "objective/non_score_reward", "episodic_return",
    ),
    "error_rate": (
        "wer", "cer", "dev_eer", "EER", "valid_wer", "fid", "FID", "min_dcf", "mindcf", "t-DCF", "error_rate",
        "val_error", "top1_err", "rmse", "lpips", "label_error",
    ),
    "best": (
        "best_loss", "best_dev_eer", "bestEER", "best_acc", "best/val_loss", "best_dev_tdcf",
    ),
    "learning_rate": (
        "lr", "LR", "learning_rate", "learning rate", "lr/pg0", "lr-Adam", "lr-AdamW/pg1", "current_lr",
        "TrainIterStats/current_lr", "optim0_lr0", "lrate", "lr_multiplier", "lrm", "train/lr", "train_lr",
        "learningRate", "lr_group_1", "params/lr", "optimizer/lr", "base_lr",
    ),
    "grad_norm": (
        "grad_norm", "grad norm", "gnorm", "train/grad_norm", "optim/total_grad_norm", "grad_2.0_norm_total",
        "grad_2.0_norm/layer.weight", "gradient_norm", "global_norm", "total_norm", "avg_grad_norm", "gradnorm",
        "grad_norm/layers.11.attn", "grads/norm", "gradients/global_norm", "norm_of_gradient", "grad_norm_clipped",
        "embedding_grad_l2_norm", "grad_norm_g",
    ),
    "param_norm": (
        "param_norm", "params/norm", "weight_norm", "params norm", "update_norm", "params/l2_norm", "update_ratio",
        "update_ratio/loss", "generator/update_ratio/grad_proj", "shard_update_ratio/best",
    ),
    "gradient_share": (
        "zero_grads", "zero_grads/loss", "dead_units", "dead_units/loss", "generator/dead_units/lr_head",
        "shard_dead_units/acc", "clip_rate", "critic/clip_rate", "shard_zero_grads/best",
    ),
    "loss_scale": (
        "loss_scale", "loss scale", "train/loss_scale", "grad_scale", "scaler", "amp_scale", "loss_scaler",
    ),
    "weight": (
        "curriculum/weight/kd", "losses/kd/weight", "kd_weight", "loss_weight", "lambda", "lambda_adv", "kl_weight",
        "loss_weights/box", "lambda_kd",
    ),
    "hyperparameter": (
        "momentum", "weight_decay", "wd", "dropout", "temperature", "ema_decay", "batch_size", "clip_range",
        "global batch size", "teacher_forcing_ratio", "output_proj_clip_threshold", "loss_ratio",
    ),
    "throughput": (
        "tok/s", "tok/sec", "tokens_per_second", "tokens_per_s", "samples_per_second", "train_steps_per_second",
        "it/s", "words/s", "items/sec", "train_epoch_avg_items/sec", "throughput",
        "throughput/device/batches_per_second", "time/fps", "mfu", "perf/mfu", "tflops", "wps", "ups", "imgs_per_sec",
        "tokens_per_sec_per_gpu", "images/s",
    ),
    "step_time": (
        "dt", "step_time", "iter_time", "step_time_ms", "time_per_step", "time_per_image_s", "data_time", "epoch_time",
        "loader_time", "TrainIterStats/loader_time", "elapsed_time_per_iteration_ms", "s/it", "sec_per_step", "time",
        "batch_time", "eval_runtime", "forward_time", "step_avg", "perf/step_time_s", "backward_ms",
    ),
    "wall_time": (
        "ETA", "wall", "train_wall", "eta_seconds", "eta", "elapsed_time", "remaining_time", "time/time_elapsed",
        "train_runtime", "total_time", "wall_time", "timestamp", "elapsed_ms", "walltime",
    ),
    "memory": (
        "memory", "gpu_memory_mb", "resources/gpu_memory_gb", "memory/peak_gb", "max_mem", "vram_gb", "cpu_mem",
        "ram_used", "gpu_max_cached_mem_GB", "rss_mb", "gpu_mem", "system.gpu.0.memoryAllocated",
        "system.proc.memory.rssMB", "system.memory_percent", "mem", "cuda_max_memory", "GPU_mem", "memory_allocated",
        "peak_memory_gb", "ram_gb",
    ),
    "system": (
        "system.cpu", "system.gpu.0.temp", "system.gpu.0.memory", "system.gpu.0.memoryClock", "system.disk.in",
        "system.gpu.0.powerWatts", "system.proc.memory.availableMB", "gpu_utilization", "cpu_percent", "gpu_temp",
    ),
    "counter": (
        "epoch", "step", "global_step", "trainer/global_step", "time/iterations", "time/total_timesteps", "tokens",
        "consumed_samples", "number_of_nan_iterations", "total_flos", "throughput/total_tokens", "num_updates",
        "time/episodes", "data/files", "curriculum/progress", "percentage", "samples_seen",
        "input_batch/documents_used", "train/epoch", "throughput/total_training_Gflops", "n_updates",
        "time/total_episodes", "nonfinite_grads", "nonfinite_grads/loss",
    ),
    "d_real": (
        "d_real", "D_real", "D(x)", "disc_real_score", "d_on_real",
    ),
    "d_fake": (
        "d_fake", "D_fake", "D(G(z))", "disc_fake_score",
    ),
    "g_adversarial": (
        "G_GAN", "gen_adv_loss", "g_adversarial",
    ),
    "diversity": (
        "diversity", "n_modes", "modes_covered", "sample_std", "lpips_div",
    ),
    # what resembles something and is nothing of it
    "": (
        "foo", "hp_metric", "lossless", "glossary", "lossless_ratio", "loss_z", "norm_z", "std_reward",
        "mean_ep_length", "r", "grad_mean", "grad_abs_mean", "memory_bank_size", "total_memory_gb",
        "gpu_memory_total_gb", "approx_kl", "clip_fraction", "explained_variance", "dynamic_alpha_step",
        "train/max_teacher_conf_mean_epoch", "feature_map", "blur", "flora", "colr", "mapping", "underscore_x",
        "pplx_id", "ascent", "layernorm", "batch_norm", "costume", "timer_id", "memo",
    ),
}  # fmt: skip
CASES = [(tag, role) for role, tags in NAMES.items() for tag in tags]


@pytest.mark.parametrize(("tag", "role"), CASES, ids=[tag for tag, _ in CASES])
def test_a_real_name_has_its_role(tag: str, role: str) -> None:
    assert role_of(split_tag(tag)[1]) == role


def test_the_table_is_large_enough_to_mean_something_and_names_every_role() -> None:
    assert len({tag for tag, _ in CASES}) == len(CASES) >= 300
    assert set(NAMES) - {""} == set(ROLES) == {alias.role for alias in ALIASES}
    assert set(ROLES) >= LOSSES


def test_a_number_in_a_name_changes_no_role() -> None:
    for tag, role in CASES:
        name = split_tag(tag)[1]
        assert role_of(f"{name}/7") == role_of(f"{name}/123456"), (tag, role)


def test_separators_and_letter_case_change_no_role() -> None:
    for name, role in (("learning_rate", "learning_rate"), ("grad_norm", "grad_norm"), ("kd_loss", "component_loss")):
        first, last = name.split("_")
        for spelling in (f"{first} {last}", f"{first}-{last}", f"{first}/{last}", f"{first}.{last}", name.upper(),
                         first + last.title()):  # fmt: skip
            assert role_of(spelling) == role, spelling


def test_what_decided_is_told_in_words_of_the_name() -> None:
    for tag, role in CASES:
        found, said = alias_of(split_tag(tag)[1])
        assert (found == "") == (said == "") and said in words_of(split_tag(tag)[1]), (tag, role)


def test_losses_fall_and_learning_rates_need_not() -> None:
    assert is_loss("kd_loss") and is_loss("ppl") and not is_loss("lr") and not is_loss("loss_scale")


@pytest.mark.parametrize(
    "name", ["", " ", "/", "%$#", "\n", "損失", "<script>loss</script>", "x" * 10_000, "loss " * 3_000]
)
def test_any_name_gets_an_answer(name: str) -> None:
    assert role_of(name) in {"", *ROLES}


def test_the_page_of_roles_has_every_role_and_the_words_of_the_user() -> None:
    page = (Path(__file__).parents[2] / "docs" / "roles.md").read_text(encoding="utf-8")
    assert [name for name in SETTABLE if f"`{name}`" not in page] == []


def test_no_digit_above_two_decides_a_role() -> None:
    """Names that differ in such digits only are looked at once: that is right as long as no pattern asks for one."""
    plain = [re.sub(r"\{\d*,?\d*\}", "", alias.pattern + alias.unless) for alias in ALIASES]
    assert [pattern for pattern in plain if re.search("[3-9]", pattern)] == []
    for tag, role in CASES:
        assert role_of(alike(split_tag(tag)[1])) == role, tag
