"""Names under which people write what a plan holds; one table, which docs/plan.md shows."""

from __future__ import annotations

__all__ = ["CONFIGURATIONS", "FOREIGN", "INNER", "NAMES", "ONLY_BELOW", "SCHEDULER"]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_NAMES = {
    "max_steps": (
        "max_steps max_train_steps train_steps training_steps num_train_steps max_training_steps "
        "num_training_steps total_training_steps total_steps num_steps max_iters train_iters max_iter "
        "num_iters total_iters max_iterations num_iterations iterations max_update max_updates"
    ),
    "epochs": "num_train_epochs epochs max_epochs num_epochs n_epochs total_epochs max_epoch",
    "steps_per_epoch": (
        "steps_per_epoch num_steps_per_epoch iters_per_epoch updates_per_epoch num_update_steps_per_epoch"
    ),
    "accumulation": (
        "gradient_accumulation_steps accumulate_grad_batches grad_accum_steps grad_accumulation_steps "
        "accumulation_steps gradient_accumulation grad_accumulation grad_accum"
    ),
    "clip_norm": (
        "max_grad_norm gradient_clip_val grad_clip clip_grad_norm clip_grad grad_clip_norm grad_norm_clip "
        "gradient_clipping gradient_clip clip_norm"
    ),
    "lr.peak": "learning_rate lr base_lr peak_lr max_lr initial_lr",
    "lr.schedule": (
        "lr_scheduler_type lr_scheduler lr_scheduler_name scheduler scheduler_type scheduler_name lr_schedule "
        "schedule sched learning_rate_schedule lr_decay_style lr_policy"
    ),
    "lr.warmup_steps": (
        "warmup_steps num_warmup_steps lr_warmup_steps warmup_iters lr_warmup_iters warmup_num_steps "
        "num_warmup_iters warmup_updates warmup warmup_iterations"
    ),
    "lr.warmup_ratio": (
        "warmup_ratio lr_warmup_ratio warmup_fraction lr_warmup_fraction warmup_proportion warmup_frac"
    ),
    "lr.warmup_epochs": "warmup_epochs lr_warmup_epochs num_warmup_epochs",
    "lr.total_steps": (
        "lr_decay_iters lr_decay_steps num_training_steps total_steps t_max max_steps num_steps t_initial "
        "total_iters max_iters"
    ),
    "lr.decay_steps": "num_decay_steps decay_steps",
    "lr.min": "min_lr eta_min end_lr lr_end lr_min final_lr min_learning_rate end_learning_rate",
    "lr.min_ratio": "min_lr_ratio min_lr_rate lr_min_ratio",
    "lr.milestones": "milestones lr_milestones lr_steps",
    "lr.gamma": "gamma lr_gamma decay_rate lr_decay_rate decay_factor lr_decay_factor",
    "lr.step_size": "step_size lr_step_size lr_decay_every",
    "lr.cycles": "num_cycles n_cycles",
    "lr.first_cycle": "t_0 cycle_length first_cycle_steps period",
    "lr.cycle_mult": "t_mult cycle_mult",
    "lr.pct_start": "pct_start",
    "lr.div_factor": "div_factor",
    "lr.final_div_factor": "final_div_factor",
    "lr.start": "warmup_start_lr warmup_init_lr warmup_lr_init",
    "lr.power": "power lr_power poly_power",
    "curriculum": "curriculum curriculum_learning",
    "loss_weights": "loss_weights loss_weight",
    "trainable": "trainable trainable_layers trainable_modules",
    "freeze": "freeze frozen freeze_layers frozen_layers freeze_modules frozen_modules",
    "unfreeze_step": "unfreeze_step unfreeze_at_step unfreeze_after_steps",
    "unfreeze_epoch": "unfreeze_epoch unfreeze_at_epoch unfreeze_after_epochs",
    "required_inputs": "required_inputs",
    "forbidden_inputs": "forbidden_inputs",
    "required_outputs": "required_outputs",
}
#: What a plan knows -> names that mean it, anywhere in a configuration but below `FOREIGN`.
NAMES: dict[str, tuple[str, ...]] = {key: tuple(words.split()) for key, words in _NAMES.items()}
#: Parts of a path that say that a setting below them is of a schedule of the learning rate.
SCHEDULER = _words(
    "lr_scheduler lr_scheduler_kwargs lr_scheduler_config scheduler scheduler_kwargs scheduler_params schedulers sched "
    "lr_schedule learning_rate_schedule scheduler_config scheduler_args lr_config optimizer_schedule lr_scheduler_args"
)
#: Parts of a path below which nothing is of the training as a whole.
FOREIGN = _words(
    "data dataset datasets dataloader data_module datamodule train_dataset val_dataset eval evaluation test validation "
    "val callbacks callback logger loggers logging generation generation_config noise_scheduler noise_schedule "
    "diffusion beta_schedule ema teacher tokenizer search sweep environment env system wandb mlflow lora lora_config "
    "peft_config quantization quantization_config augmentation augmentations transforms profiler vocoder sampler "
    "log_history best_run_config momentum weight_decay_schedule temperature dropout pretrain pretraining "
    "stateful_callbacks"
)
#: Below these, lengths are of a model (diffusion steps, iterations of a solver) and not of the training.
INNER = _words("model network net architecture backbone encoder decoder generator discriminator loss criterion")
#: Names that mean something of a schedule only below one.
ONLY_BELOW = frozenset(("period",))
#: Files of configurations, the most telling first; each is read as YAML or JSON, and nothing of it is executed.
CONFIGURATIONS = (
    "training_args.json", "training_args.yaml", "hparams.yaml", "hparams.yml", "hparams.json", "args.json", "args.yaml",
    "args.yml", "train_config.yaml", "train_config.json", "training_config.yaml", "training_config.json",
    "hyperparameters.json", "hyperparameters.yaml", ".hydra/config.yaml", "config.yaml", "config.yml", "config.json",
    "params.yaml", "params.json", "opt.yaml",
)  # fmt: skip
