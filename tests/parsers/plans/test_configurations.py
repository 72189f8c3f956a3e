from __future__ import annotations

from typing import Any

import pytest

from parsers.plan import Plan
from parsers.plans.understanding import Declared, read_plan


def read(config: dict[str, Any], *, components: tuple[str, ...] = (), **more: dict[str, Any]) -> Plan:
    """The plan of `config.yaml`, and of further files of less authority."""
    files = {"config.yaml": config, **{name.replace("_", "."): content for name, content in more.items()}}
    return read_plan(Declared({}), files, {name: name for name in components})


def lr(config: dict[str, Any]) -> dict[str, Any]:
    return dict(read(config).lr)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        pytest.param(
            {"learning_rate": 6e-4, "max_iters": 600, "decay_lr": True, "warmup_iters": 20, "lr_decay_iters": 500,
             "min_lr": 6e-5},
            {"schedule": "cosine", "peak": 6e-4, "total_steps": 500, "warmup_steps": 20, "min": 6e-5},
            id="nanoGPT",
        ),
        pytest.param(
            {"lr": 1.5e-4, "min_lr": 1e-5, "lr_decay_style": "cosine", "lr_decay_iters": 320, "train_iters": 500,
             "lr_warmup_fraction": 0.01},
            {"schedule": "cosine", "peak": 1.5e-4, "total_steps": 320, "warmup_steps": 4, "min": 1e-5},
            id="Megatron, whose fraction is of the decay",
        ),
        pytest.param(
            {"training": {"lr_scheduler": {"type": "cosine", "warmup_steps": 500}, "max_steps": 10_000},
             "optim": {"lr": 3e-4}},
            {"schedule": "cosine", "peak": 3e-4, "total_steps": 10_000, "warmup_steps": 500},
            id="nested as by Hydra",
        ),
        pytest.param(
            {"optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": "1e-3"}},
             "lr_scheduler": {"class_path": "torch.optim.lr_scheduler.CosineAnnealingLR",
                              "init_args": {"T_max": 100, "eta_min": 1e-6}},
             "trainer": {"max_epochs": 100, "max_steps": -1}, "steps_per_epoch": 40},
            {"schedule": "cosine", "peak": 1e-3, "unit": "epoch", "steps_per_epoch": 40, "total_steps": 100,
             "min": 1e-6},
            id="LightningCLI by epochs",
        ),
        pytest.param(
            {"lr_scheduler": {"_target_": "torch.optim.lr_scheduler.LambdaLR", "_partial_": 1.0, "lr_lambda": {
                "_target_": "a.get_constant_schedule_with_warmup_lr_lambda", "num_warmup_steps": 10}},
             "optimizer": {"lr": 1e-4}},
            {"schedule": "constant_with_warmup", "peak": 1e-4, "warmup_steps": 10},
            id="a lambda that names what it is",
        ),
        pytest.param(
            {"scheduler": {"name": "OneCycleLR", "max_lr": 0.1, "total_steps": 1000, "pct_start": 0.2, "div_factor": 10,
                           "final_div_factor": 100}, "optimizer": {"lr": 0.01}},
            {"schedule": "onecycle", "peak": 0.1, "total_steps": 1000, "pct_start": 0.2, "start": 0.01, "min": 1e-4},
            id="one cycle, whose peak is max_lr",
        ),
        pytest.param(
            {"lr": 0.1, "epochs": 90, "lr_scheduler": "step", "step_size": 30, "gamma": 0.1, "steps_per_epoch": 7},
            {"schedule": "step", "peak": 0.1, "unit": "epoch", "steps_per_epoch": 7, "step_size": 30, "gamma": 0.1},
            id="flat arguments by epochs",
        ),
        pytest.param(
            {"lr": 0.1, "epochs": 3, "scheduler": {"type": "MultiStepLR", "milestones": [1000, 2000], "gamma": 0.5}},
            {"schedule": "multistep", "peak": 0.1, "milestones": [1000, 2000], "gamma": 0.5},
            id="milestones beyond all epochs are steps",
        ),
        pytest.param(
            {"lr": 0.1, "max_steps": 900,
             "scheduler": {"name": "CosineAnnealingWarmRestarts", "T_0": 100, "T_mult": 2}},
            {"schedule": "cosine_with_restarts", "peak": 0.1, "first_cycle": 100, "cycle_mult": 2.0},
            id="restarts",
        ),
        pytest.param(
            {"lr": 1.0, "max_steps": 1000, "lr_scheduler_type": "cosine_with_min_lr", "min_lr_ratio": 0.1},
            {"schedule": "cosine", "peak": 1.0, "total_steps": 1000, "min": 0.1},
            id="a least rate as a share",
        ),
        pytest.param(
            {"lr": 1.0, "lr_scheduler_type": "warmup_stable_decay", "max_steps": 100, "warmup_steps": 10,
             "lr_scheduler_kwargs": {"num_decay_steps": 20}},
            {"schedule": "wsd", "peak": 1.0, "total_steps": 100, "warmup_steps": 10, "decay_steps": 20},
            id="warm-up, stable, decay",
        ),
        pytest.param(
            {"lr": 1.0, "scheduler": "polynomial", "max_steps": 100, "power": 2, "lr_end": 1e-7},
            {"schedule": "polynomial", "peak": 1.0, "total_steps": 100, "power": 2.0, "min": 1e-7},
            id="polynomial",
        ),
        pytest.param({"optimizer.lr": 0.5, "scheduler.type": "constant"}, {"schedule": "constant", "peak": 0.5},
                     id="names joined by points"),
        pytest.param({"learning_rate": {"value": 0.5, "desc": None}, "lr_scheduler": {"value": "linear"},
                      "max_steps": {"value": 40}},
                     {"schedule": "linear", "peak": 0.5, "total_steps": 40}, id="as W&B writes it"),
        pytest.param(
            {"trainer": {"max_epochs": 20}, "lr": 0.1, "base": "${lr}", "optimizer": {"lr": "${base}"}, "scheduler": {
                "_target_": "torch.optim.lr_scheduler.CosineAnnealingLR", "T_max": "${trainer.max_epochs}"}},
            {"schedule": "cosine", "peak": 0.1, "unit": "epoch", "total_steps": 20},
            id="references of Hydra",
        ),
        pytest.param(
            {"lr": 0.1, "max_steps": 1000, "scheduler": {"name": "cosine", "warmup": {"steps": 50, "type": "linear"}}},
            {"schedule": "cosine", "peak": 0.1, "total_steps": 1000, "warmup_steps": 50},
            id="a warm-up that is an object",
        ),
        pytest.param(
            {"lr": 0.1, "max_steps": 1000, "scheduler": {"name": "cosine", "warmup": {"enabled": False, "steps": 50}}},
            {"schedule": "cosine", "peak": 0.1, "total_steps": 1000, "warmup_steps": 0},
            id="a warm-up that is switched off",
        ),
        pytest.param(
            {"lr": 0.1, "epochs": 12,
             "scheduler": {"type": "MultiStepLR", "by_epoch": True, "milestones": [8, 11], "last_epoch": -1, "eps": 1}},
            {"schedule": "multistep", "peak": 0.1, "unit": "epoch", "milestones": [8, 11]},
            id="a scheduler that says what it counts",
        ),
        pytest.param({"--learning-rate": 0.5, "--lr-scheduler": "linear", "maxSteps": 40},
                     {"schedule": "linear", "peak": 0.5, "total_steps": 40}, id="as a command line and Java write it"),
    ],
)  # fmt: skip
def test_schedules_are_read_in_the_way_of_each_framework(config: dict[str, Any], expected: dict[str, Any]) -> None:
    plan = read(config)
    assert plan.lr == pytest.approx(expected) if "milestones" not in expected else plan.lr == expected
    assert plan.not_understood == ()
    assert {f"lr.{key}" for key in expected} <= set(plan.sources)


@pytest.mark.parametrize(("warmup", "steps"), [(0.1, 100), (500, 500), ("0.1", 100), (0, 0)])
def test_a_warmup_below_one_is_a_share_and_a_whole_number_above_are_steps(warmup: Any, steps: int) -> None:
    assert lr({"lr": 1.0, "scheduler": "linear", "max_steps": 1000, "warmup": warmup})["warmup_steps"] == steps


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"warmup": 1}, "1 may be one step or the whole training"),
        ({"warmup": 1.5}, "expected a whole number of steps or a share below 1, found 1.5"),
        ({"warmup_ratio": 30}, "expected a share from 0 to 1, found 30"),
        ({"warmup_epochs": 2}, "nothing says how many steps one has"),
        ({"warmup_steps": "many"}, "'many' is not understood as warmup steps of the learning rate"),
        ({"scheduler": {"name": "linear", "warmup": {"kind": "slow"}}}, "how long the warm-up is, is not understood"),
        ({"scheduler": {"name": "linear", "hold_steps": 30}}, "may hang on it"),
        ({"scheduler": {"name": "linear", "warmup_type": "exponential"}}, "may hang on it"),
        ({"a": {"warmup_steps": 5}, "b": {"warmup_steps": 6}}, "which of them is warmup steps"),
    ],
)
def test_a_schedule_of_which_a_number_is_in_doubt_is_not_used(config: dict[str, Any], reason: str) -> None:
    plan = read({"lr": 1.0, "scheduler": "linear", "max_steps": 1000, **config})
    assert plan.lr == {"peak": 1.0} and "lr.schedule" not in plan.sources
    assert reason in plan.not_understood[0] and "a number of it is in doubt" in plan.not_understood[-1]


@pytest.mark.parametrize(
    "config",
    [
        {"lr": 1.0, "scheduler": "exponential", "gamma": 0.99},
        {"lr": 1.0, "epochs": 20, "scheduler": {"type": "StepLR", "step_size": 30, "gamma": 0.1}},
        {"lr": 1.0, "scheduler": {"type": "CosineAnnealingLR", "T_max": 50}, "epochs": 40},
        {"lr": 1.0, "scheduler": {"type": "StepLR", "step_size": 500}, "epochs": 1000, "max_steps": 9000},
    ],
)
def test_lengths_that_may_be_steps_or_epochs_are_not_guessed(config: dict[str, Any]) -> None:
    plan = read(config)
    assert "schedule" not in plan.lr and any("interval" in told for told in plan.not_understood)


@pytest.mark.parametrize(
    "config",
    [
        {"scheduler": {"_target_": "diffusers.DDPMScheduler", "beta_schedule": "linear"}},
        {"model": {"noise_scheduler": {"type": "cosine"}}},
        {"diffusion": {"schedule": "linear", "num_steps": 1000}},
        {"gamma": 2.0, "power": 0.75, "step_size": 5},
        {"data": {"max_steps": 7, "schedule": "cosine"}, "callbacks": {"lr": 3}},
        {"model": {"num_steps": 12, "epochs": 3}},
        {"env": {"max_steps": 200}, "eval": {"steps_per_epoch": 3}},
    ],
)
def test_settings_of_something_else_are_no_plan(config: dict[str, Any]) -> None:
    plan = read(config)
    assert (plan.lr, plan.max_steps, plan.epochs, plan.steps_per_epoch, plan.sources) == ({}, None, None, None, {})


def test_references_that_lead_nowhere_or_in_circles_are_text() -> None:
    plan = read({"max_steps": "${gone.away}", "lr": "${a}", "a": "${b}", "b": "${a}", "epochs": "${max_steps}"})
    assert (plan.max_steps, plan.epochs, plan.lr) == (None, None, {}) and len(plan.not_understood) == 3


def test_two_rates_are_not_chosen_between_and_equal_ones_are() -> None:
    two = read({"generator": {"lr": 2e-4}, "discriminator": {"lr": 1e-4}})
    assert two.lr == {} and "which of them is peak of the learning rate is not said" in two.not_understood[0]
    same = read({"generator": {"lr": 2e-4}, "discriminator": {"lr": 2e-4}})
    assert same.lr == {"peak": 2e-4} and same.not_understood == ()


def test_the_first_file_counts_and_the_other_is_said() -> None:
    plan = read({"max_steps": 500}, args_json={"max_steps": 700, "lr": 0.1})
    assert plan.max_steps == 500 and plan.sources["max_steps"] == "config.yaml: max_steps"
    assert plan.not_understood == ("args.json: max_steps: 700, but 500 of config.yaml: max_steps counts",)
    assert plan.sources["lr.peak"] == "args.json: lr"


def test_what_is_unset_is_left_to_the_next_file() -> None:
    plan = read({"max_steps": -1, "num_train_epochs": 3.0, "learning_rate": "auto"}, trainer__state_json={})
    assert (plan.max_steps, plan.epochs, plan.lr) == (None, 3.0, {})
    plan = read({"max_steps": -1}, state_json={"max_steps": 120})
    assert plan.max_steps == 120 and plan.sources["max_steps"] == "state.json: max_steps"


def test_lengths_and_limits_are_found_under_their_names() -> None:
    plan = read({"trainer": {"accumulate_grad_batches": 4, "gradient_clip_val": 0.5, "max_epochs": 9},
                 "steps_per_epoch": "12"})  # fmt: skip
    assert (plan.accumulation, plan.clip_norm, plan.epochs, plan.steps_per_epoch) == (4, 0.5, 9.0, 12)
    fraction = read({"max_steps": 10.5})
    assert fraction.max_steps is None and "expected a whole number, found 10.5" in fraction.not_understood[0]


def test_weights_count_for_components_of_the_log_alone() -> None:
    config = {"loss_weights": {"kd": 0.7, "gone": 1.0, "odd": "x"}, "lambda_adv": 2.0, "weight_decay": 0.1,
              "feature_weight": 0.3, "class_weight": 5.0}  # fmt: skip
    plan = read(config, components=("kd", "adv", "feature", "odd"))
    assert plan.loss_weights == {"kd": 0.7, "adv": 2.0, "feature": 0.3}
    assert plan.hints == {"adv", "feature"}
    assert plan.sources["loss_weights.kd"] == "config.yaml: loss_weights.kd"
    assert "config.yaml: loss_weights.gone: the log has no component of this name" in plan.not_understood
    assert "config.yaml: loss_weights.odd: expected a number, found 'x'" in plan.not_understood


@pytest.mark.parametrize(
    ("phases", "axis", "starts"),
    [
        ([{"name": "a", "start": 0}, {"name": "b", "start": 100}], "step", [0, 100]),
        ([{"name": "a", "start": 0}, {"name": "b", "start": 0.3}], "progress", [0, 0.3]),
        ({"a": {"start_step": 0}, "b": {"start_step": 1}}, "step", [0, 1]),
        ([{"progress": 0}, {"progress": 0.5}], "progress", [0, 0.5]),
    ],
)
def test_phases_begin_at_steps_or_at_progress(phases: Any, axis: str, starts: list[float]) -> None:
    plan = read({"training": {"curriculum": {"enabled": True, "phases": phases}}})
    assert (plan.axis, [phase.start for phase in plan.phases]) == (axis, starts)
    assert plan.sources["curriculum"] == "config.yaml: training.curriculum"


@pytest.mark.parametrize(
    ("phases", "reason"),
    [
        ([{"start": 0}, {"start": 1}], "whether their starts are steps or progress is not said"),
        ([{"start": 0}, {"start_progress": 0.5}, {"start_step": 3}], "whether their starts"),
        ([{"weights": {"kd": 1}}], "phases[0].start: missing"),
        ([{"start": "soon"}], "phases[0].start: expected a number, found 'soon'"),
        ([3], "phases[0]: expected an object, found 3"),
        ([{"start": 9}, {"start": 5}], "expected more than 9"),
        ([{"start": 9, "weights": {"kd": "a"}}], "weights.kd: expected a number"),
    ],
)
def test_a_curriculum_that_cannot_be_used_is_said_with_its_place(phases: Any, reason: str) -> None:
    plan = read({"curriculum": {"phases": phases}})
    assert plan.phases == () and reason in plan.not_understood[0]
    assert plan.not_understood[0].startswith("config.yaml: curriculum: ")


def test_contracts_are_merged_by_stage() -> None:
    config = {"required_inputs": ["x"], "forbidden_inputs": {"teacher": ["labels"], "forward": "y"},
              "required_outputs": {"forward": ["logits"]}}  # fmt: skip
    declared = Declared({"inputs": {"forward": {"require": "ids", "forbid": ["labels"]}}})
    plan = read_plan(declared, {"config.yaml": config})
    assert plan.inputs["forward"] == {"require": ["ids", "x"], "forbid": ["labels", "y"]}
    assert plan.inputs["teacher"] == {"forbid": ["labels"]}
    assert plan.outputs == {"forward": {"require": ["logits"]}}
    assert "expected a list of names" in read({"required_inputs": {"forward": 5}}).not_understood[0]


def test_layers_that_train_are_named_or_flagged() -> None:
    assert read({"freeze": ["a", "b"], "unfreeze_step": 50}).unfreeze_step == 50
    assert read({"freeze_encoder": True, "freeze_bn": False}).freeze == ("encoder",)
    assert read({"trainable": "lora_*"}).trainable == ("lora_*",)
    assert read({"freeze": True, "trainable": None}) == Plan()
    late = read({"freeze": "body", "unfreeze_epoch": 2, "steps_per_epoch": 10})
    assert late.unfreeze_step == 20
    assert "add steps_per_epoch" in read({"freeze": "body", "unfreeze_epoch": 2}).not_understood[0]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"patience": 10}, True),
        ({"early_stopping": {"patience": 3}}, True),
        ({"trainer": {"callbacks": [{"class_path": "lightning.pytorch.callbacks.EarlyStopping"}]}}, True),
        ({"load_best_model_at_end": True}, True),
        ({"stateful_callbacks": {"EarlyStoppingCallback": {"args": {}}}}, True),
        ({"max_time": "00:12:00:00"}, True),
        ({"scheduler": {"type": "ReduceLROnPlateau", "patience": 5}}, False),
        ({"early_stopping": False, "patience": 0, "load_best_model_at_end": False, "time": None}, False),
        ({"early_stopping": "off", "es_patience": None}, False),
    ],
)
def test_a_setting_that_lets_a_run_stop_early_is_found(config: dict[str, Any], expected: bool) -> None:
    assert bool(read(config).early_stop) is expected


def test_what_is_declared_goes_before_all_and_may_use_the_names_of_people() -> None:
    declared = Declared({"lr": {"schedule": "cosine", "warmup_ratio": 0.1}, "max_train_steps": 100, "curiculum": 1})
    plan = read_plan(declared, {"a.json": {"lr_scheduler": "linear", "learning_rate": 0.5, "max_steps": 900}})
    assert plan.lr == {"schedule": "cosine", "peak": 0.5, "total_steps": 100, "warmup_steps": 10}
    assert (
        plan.sources["lr.warmup_steps"] == "plan: lr.warmup_ratio"
        and plan.sources["lr.peak"] == "a.json: learning_rate"
    )
    assert plan.max_steps == 100
    assert "plan.curiculum: unknown key; did you mean 'curriculum'?" in plan.not_understood
    assert "a.json: max_steps: 900, but 100 of plan: max_train_steps counts" in plan.not_understood


def test_a_declared_schedule_may_have_the_name_that_a_library_gives_it() -> None:
    declared = Declared({"lr": {"schedule": "CosineAnnealingWarmRestarts", "peak": 1, "period": 50}, "period": 3})
    plan = read_plan(declared, {})
    assert plan.lr == {"schedule": "cosine_with_restarts", "peak": 1, "first_cycle": 50}
    assert plan.not_understood == ("plan.period: unknown key",)
    assert read_plan(Declared({"lr": {"schedule": "mine"}}), {}).lr == {"schedule": "mine"}


def test_a_declared_key_that_cannot_be_used_does_not_spoil_the_others() -> None:
    plan = read_plan(Declared({"max_steps": 0, "epochs": 3, "trainable": 5, "steps_per_epoch": True}), {})
    assert plan.epochs == 3 and plan.max_steps is None
    assert len(plan.not_understood) == 3 and plan.not_understood[0].startswith("plan.max_steps: expected a whole")


def test_a_rate_under_lr_in_a_declared_plan_is_the_learning_rate() -> None:
    assert read_plan(Declared({"lr": 3e-4}), {}).lr == {"peak": 3e-4}
    assert read_plan(Declared({"lr": "3e-4", "scheduler": "constant"}), {}).lr == {"schedule": "constant", "peak": 3e-4}


def test_the_summary_counts_entries_files_and_what_is_left() -> None:
    plan = read({"max_steps": 5, "lr": 0.1, "scheduler": "foo"}, args_json={"patience": 3})
    assert plan.summary == "3 entries understood (config.yaml, args.json), 1 not"
    assert Plan().summary == "no plan"
