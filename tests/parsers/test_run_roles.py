"""`run.roles`: what the series of a run are, which of them stand for it, and what the user says about that."""

from __future__ import annotations

import dataclasses

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstream.errors import InputError
from parsers.finish import finish
from parsers.naming.primary_roles import PRIMARY, choose
from parsers.naming.role_layout import SeriesRole
from parsers.naming.role_overrides import SETTABLE
from parsers.naming.roles import ROLES, alike, role_of
from parsers.run import Run, RunSet

COLUMNS = ["split", "metric", "tag", "role", "side", "primary", "why", "by"]


def run_of(name: str = "demo", /, **counts: int) -> Run:
    """A run with so many values of each tag; `__` in a name is a slash."""
    rows = [(tag.replace("__", "/"), step, 1.0) for tag, count in counts.items() for step in range(count)]
    table = pl.DataFrame(rows, schema={"tag": pl.String, "step": pl.Int64, "value": pl.Float64}, orient="row")
    return finish(name, f"{name}.jsonl", "jsonl", table)


def chosen(run: Run) -> dict[str, str]:
    return {name: str(run.roles[name].series) for name in PRIMARY if run.roles[name]}


# which series stands for the run


def test_a_trainers_log_has_one_series_of_each_kind() -> None:
    run = run_of(train_loss=90, eval_loss=9, lr=90, grad_norm=90, tokens_per_second=90, gpu_memory_gb=90, epoch=90)
    assert chosen(run) == {
        "train_loss": "train loss", "eval_loss": "eval loss", "learning_rate": "lr", "grad_norm": "grad_norm",
        "throughput": "tokens_per_second", "memory": "gpu_memory_gb",
    }  # fmt: skip


def test_a_summary_of_the_job_is_not_the_training_loss() -> None:
    roles = run_of(loss=200, train__train_loss=1).roles
    assert roles["train_loss"].metric == "loss"
    assert roles["train_loss"].why == "the longest of 2; also train_loss"


def test_a_total_goes_before_its_parts_whatever_their_names() -> None:
    roles = run_of(kd_loss=100, aux_loss=100, total_loss=100).roles
    assert roles["train_loss"].metric == "total_loss"
    assert [one.role for one in roles] == ["component_loss", "component_loss", "loss"]


def test_the_plain_name_goes_before_its_like() -> None:
    assert run_of(nll_loss=100, loss=100, mse=100).roles["train_loss"].metric == "loss"
    assert run_of(loss_step=100, loss_epoch=4).roles["train_loss"].metric == "loss_step"
    assert run_of(lr_multiplier=10, lr=10).roles["learning_rate"].metric == "lr"


def test_parts_without_a_total_stand_for_nothing_and_that_is_said() -> None:
    primary = run_of(train__box_loss=9, train__cls_loss=9, val__aux_loss=9).roles["train_loss"]
    assert not primary and primary.metric is None and primary.split is None and primary.tag is None
    assert primary.why == "2 parts (box_loss, cls_loss), and no series that stands for the whole"


def test_the_only_loss_of_a_side_is_its_loss() -> None:
    roles = run_of(train__box_loss=9, val__cls_loss=3, val__aux_loss=3).roles
    assert roles["train_loss"].metric == "box_loss" and not roles["eval_loss"]
    told = roles.of("box_loss", "train")
    assert (told.role, told.by, told.why) == ("loss", "layout", "the only loss with split train")
    assert roles.of("cls_loss", "eval").role == "component_loss"
    assert not run_of(train__box_loss=9, val__box_loss=3, val__cls_loss=3).roles["train_loss"], "a part elsewhere"


def test_the_eval_loss_is_of_eval_before_test_and_alike_the_training_loss() -> None:
    assert run_of(loss=9, test_loss=99, eval_loss=3).roles["eval_loss"].split == "eval"
    assert run_of(loss=9, test_loss=99).roles["eval_loss"].split == "test"
    both = run_of(train__nll_loss=9, val__loss=9, val__nll_loss=9)
    assert both.roles["eval_loss"].metric == "nll_loss"


def test_losses_of_eval_alone_are_no_training_loss() -> None:
    primary = run_of(eval_loss=9).roles["train_loss"]
    assert not primary and primary.why == "the losses are of eval only"


def test_norms_of_layers_are_not_the_gradient_norm() -> None:
    roles = run_of(grad_norm__a=9, grad_norm__b=9, grad_norm__c=9).roles
    assert not roles["grad_norm"] and roles["grad_norm"].why == "3 norms of parts, and none of all gradients"
    assert run_of(grad_norm__a=9, grad_norm__b=9, grad_norm=9).roles["grad_norm"].metric == "grad_norm"
    assert run_of(grad_norm__a=9, total_grad_norm=9).roles["grad_norm"].metric == "total_grad_norm"
    assert not run_of(d_grad_norm=9, g_grad_norm=9).roles["grad_norm"]


def test_training_speed_goes_before_that_of_evaluation_and_tokens_before_steps() -> None:
    run = run_of(eval_samples_per_second=1, train_samples_per_second=1, train_steps_per_second=1)
    assert run.roles["throughput"].metric == "train_samples_per_second"
    assert run_of(mfu=9, steps_per_second=9, tokens_per_second=9).roles["throughput"].metric == "tokens_per_second"


def test_memory_of_the_gpu_goes_before_that_of_the_host() -> None:
    assert run_of(rss_mb=9, memory_percent=9, gpu_memory_gb=9).roles["memory"].metric == "gpu_memory_gb"


def test_the_players_of_a_gan_are_told_apart() -> None:
    roles = run_of(g_loss=9, d_loss=9, d_loss_real=9, g_loss_mel=9, d_real=9).roles
    assert roles["generator_loss"].metric == "g_loss" and roles["discriminator_loss"].metric == "d_loss"
    assert roles.of("g_loss_mel").role == "component_loss" and roles["d_real"].metric == "d_real"


def test_a_critic_is_a_discriminator_only_beside_a_generator() -> None:
    assert run_of(critic_loss=9, g_loss=9).roles["discriminator_loss"].metric == "critic_loss"
    alone = run_of(critic_loss=9, actor_loss=9).roles
    assert not alone["discriminator_loss"] and alone["policy_loss"].metric == "actor_loss"


def test_a_bare_norm_is_of_gradients_in_the_log_of_a_training_alone() -> None:
    assert run_of(loss=9, norm=9).roles.of("norm").role == "grad_norm"
    assert run_of(norm=9, foo=9).roles.of("norm").role == ""
    assert run_of(loss=9, norm=9, grad_norm=9).roles.of("norm").role == ""


def test_the_letters_of_monitor_mean_something_together_alone() -> None:
    assert run_of(r=9, l=9, t=9).roles["reward"].metric == "r"
    assert run_of(r=9, l=9).roles.of("r").role == ""


def test_the_time_of_ultralytics_is_that_since_the_start() -> None:
    assert run_of(time=9, lr__pg0=9).roles.of("time").role == "wall_time"
    assert run_of(time=9, lr=9).roles.of("time").role == "step_time"


# asking


def test_one_metric_is_asked_for_by_name_split_and_tag() -> None:
    roles = run_of(train__loss=9, val__loss=3).roles
    assert [roles.of("loss", split).side for split in (None, "train", "eval")] == ["train", "train", "eval"]
    assert roles.of("loss", "eval", "val/loss").count == 3
    assert roles.is_loss("loss") and not roles.is_loss("lr")


def test_a_metric_that_the_run_has_not_goes_by_its_name() -> None:
    assert run_of(loss=2).roles.of("grad_norm").role == "grad_norm"


def test_an_unknown_role_is_refused_with_the_nearest() -> None:
    with pytest.raises(KeyError, match="unknown role 'los'; did you mean 'loss'"):
        run_of(loss=2).roles["los"]


def test_ranks_are_one_series() -> None:
    table = {"tag": ["loss"] * 6, "rank": [0, 0, 1, 1, 2, 2], "step": [1, 2] * 3, "value": [1.0] * 6}
    roles = finish("r", "r", "jsonl", pl.DataFrame(table)).roles
    assert len(roles) == 1 and roles.of("loss").count == 2


def test_roles_are_decided_once_and_do_not_change() -> None:
    run = run_of(loss=2)
    assert run.roles is run.roles
    with pytest.raises(dataclasses.FrozenInstanceError):
        run.roles.of("loss").role = "lr"  # type: ignore[misc]


def test_an_empty_run_has_no_roles_and_says_so() -> None:
    roles = run_of().roles
    assert len(roles) == 0 and roles.frame.is_empty() and roles.frame.columns == COLUMNS
    assert roles["train_loss"].why == "no series is known as a loss that stands for the whole"
    assert "0 series" in repr(roles) and "none" in roles._repr_html_()


# looking


def test_the_frame_has_a_row_a_series_and_marks_what_stands_for_the_run() -> None:
    frame = run_of(train_loss=9, kd_loss=9, foo=9).roles.frame
    assert frame.columns == COLUMNS and frame.schema == run_of().roles.frame.schema
    assert frame.select("tag", "role", "primary", "by").sort("tag").rows() == [
        ("foo", "", "", ""),
        ("kd_loss", "component_loss", "", "name"),
        ("train_loss", "loss", "train_loss", "name"),
    ]
    assert frame.filter(pl.col("tag") == "kd_loss")["why"][0] == 'named like a part of a loss: "loss"'


def test_the_text_says_each_choice_with_its_reason() -> None:
    text = repr(run_of(loss=9, lr=9, **{f"foo_{i}": 1 for i in range(40)}).roles)
    assert text.startswith("<Roles of demo: 42 series, 2 known>")
    assert "train_loss         loss (the only one;" in text and "and 22 more: see .frame" in text
    assert "grad_norm          none (no series is known as a gradient norm)" in text


def test_hostile_names_are_escaped_in_html() -> None:
    rows = pl.DataFrame({"tag": ["<script>loss</script>"] * 2, "step": [1, 2], "value": [1.0, 2.0]})
    page = finish("<i>", "x", "jsonl", rows).with_roles({"<script>loss</script>": "loss"}).roles._repr_html_()
    assert "<script>" not in page and "<i>" not in page and "&lt;script&gt;loss" in page


# the user's word


def test_the_user_says_what_a_series_is() -> None:
    run = run_of(energy=9, loss=9).with_roles({"energy": "train_loss", "loss": "other"})
    assert run.roles["train_loss"].metric == "energy" and run.roles.of("loss").role == ""
    told = run.roles.of("energy")
    assert (told.role, told.by, told.why) == ("loss", "user", 'set by the user: "energy" is train_loss')
    assert run.roles.frame.filter(pl.col("tag") == "energy")["primary"][0] == "train_loss"


def test_what_the_user_names_goes_before_better_names_and_longer_series() -> None:
    assert run_of(lr=90, eta_0=3).with_roles({"eta_0": "learning_rate"}).roles["learning_rate"].metric == "eta_0"


def test_a_name_is_a_metric_a_tag_or_both_with_the_split() -> None:
    for name in ("val/foo", "foo", "eval/foo", "eval_foo", "*foo", "val/*"):
        assert run_of(loss=9, val__foo=9).with_roles({name: "eval_loss"}).roles["eval_loss"].tag == "val/foo", name


def test_a_name_goes_before_a_glob_and_the_later_before_the_earlier() -> None:
    run = run_of(a_1=2, a_2=2).with_roles({"a_1": "accuracy", "a_*": "memory"})
    assert [run.roles.of(m).role for m in ("a_1", "a_2")] == ["accuracy", "memory"]
    again = run.with_roles({"a_1": "reward"}).with_roles({"a_?": "throughput"})
    assert [again.roles.of(m).role for m in ("a_1", "a_2")] == ["reward", "throughput"]


def test_a_name_with_the_signs_of_a_glob_in_it_is_a_name() -> None:
    assert run_of(**{"map[0]": 2}).with_roles({"map[0]": "accuracy"}).roles.of("map[0]").by == "user"


def test_a_name_of_both_sides_is_the_training_loss_on_the_training_side_alone() -> None:
    roles = run_of(train__cls_loss=9, val__cls_loss=3, train__box_loss=9).with_roles({"cls_*": "train_loss"}).roles
    assert str(roles["train_loss"].series) == "train cls_loss" and str(roles["eval_loss"].series) == "eval cls_loss"


def test_a_series_without_a_split_can_be_said_to_be_of_eval() -> None:
    roles = run_of(loss=9, held_out=9).with_roles({"held_out": "eval_loss"}).roles
    assert roles["eval_loss"].metric == "held_out" and roles.of("held_out").side == "eval"
    assert roles["eval_loss"].split == "", "the split by which the series is found stays that of the log"


def test_what_follows_from_a_word_of_the_user_follows() -> None:
    roles = run_of(train__kd_loss=9, train__foo=9).with_roles({"foo": "loss"}).roles
    assert roles.of("kd_loss").role == "component_loss", "it is the only loss by name no longer"


def test_an_unknown_role_or_a_name_of_nothing_is_an_error_with_the_nearest() -> None:
    run = run_of(my_metric=2)
    with pytest.raises(ValueError, match="'my_metric': unknown role 'los'; did you mean 'loss'"):
        run.with_roles({"my_metric": "los"})
    with pytest.raises(InputError, match="demo: roles: 'my_metrik' names no series; did you mean 'my_metric'"):
        run.with_roles({"my_metrik": "loss"})
    with pytest.raises(ValueError, match="both text, not 3 to 'loss'"):
        run.with_roles({3: "loss"})  # type: ignore[dict-item]


def test_of_several_runs_one_must_have_the_series() -> None:
    runs = RunSet((run_of("a", foo=2), run_of("b", loss=2)))
    marked = runs.with_roles({"foo": "loss"})
    assert [run.roles["train_loss"].metric for run in marked] == ["foo", "loss"]
    assert not runs[0].roles["train_loss"], "the runs given stay as they were"
    with pytest.raises(InputError, match="in none of 2 runs: roles: 'fooo' names no series"):
        runs.with_roles({"fooo": "loss"})


def test_what_was_read_is_not_read_again_for_other_roles() -> None:
    run = run_of(energy=2, loss=2)
    read, known, before = run.scalars, run.catalogue, run.roles
    marked = run.with_roles({"energy": "train_loss"})
    assert marked.scalars is read and marked.catalogue is known and marked.roles is not before
    assert run.roles is before and marked.roles["train_loss"].metric == "energy"


def test_a_run_keeps_its_roles_under_another_name() -> None:
    assert run_of(energy=2).with_roles({"energy": "loss"}).renamed("b").roles["train_loss"].metric == "energy"


def test_ten_thousand_tags_of_a_deep_model_are_a_few_hundred_names_to_look_at() -> None:
    tags = [f"grad_norm/layers.{i // 100}.attention.{i % 100}.weight" for i in range(10_000)]
    assert len({alike(tag) for tag in tags}) <= 256
    rows = {"tag": [*tags, "grad_norm"], "step": [1] * 10_001, "value": [1.0] * 10_001}
    roles = finish("r", "r", "jsonl", pl.DataFrame(rows)).roles
    assert len(roles) == 10_001 and roles["grad_norm"].metric == "grad_norm"
    assert len(roles["grad_norm"].candidates) == 10_001


# laws

_NAME = st.sampled_from(
    ["loss", "kd_loss", "lr", "grad_norm", "acc", "foo", "d_loss", "g_loss", "critic_loss", "r", "l", "t"]
)
_SERIES = st.lists(
    st.tuples(st.sampled_from(["", "train", "eval", "test"]), _NAME, st.integers(1, 5)), unique_by=lambda s: s[:2]
)


@given(_SERIES, st.dictionaries(_NAME, st.sampled_from(SETTABLE), max_size=3))
def test_every_series_has_one_row_and_what_stands_for_the_run_is_one_of_its_kind(
    series: list[tuple[str, str, int]], said: dict[str, str]
) -> None:
    rows = [(f"{split}/{metric}", split, metric, s, 1.0) for split, metric, n in series for s in range(n)]
    schema = {"tag": pl.String, "split": pl.String, "metric": pl.String, "step": pl.Int64, "value": pl.Float64}
    run = finish("r", "r", "jsonl", pl.DataFrame(rows, schema=schema, orient="row"))
    run = run.with_roles({name: role for name, role in said.items() if name in run.metrics})
    assert len(run.roles) == run.roles.frame.height == run.catalogue.height
    assert set(run.roles.frame["role"]) <= {"", *ROLES}
    for name in PRIMARY:
        primary = run.roles[name]
        if primary.series is None:
            continue
        assert primary.series in primary.candidates and primary.why
        assert primary.series.role == ("loss" if name in ("train_loss", "eval_loss") else name)
        if name in ("train_loss", "eval_loss"):
            assert (primary.series.side == "train") == (name == "train_loss")
    for one in run.roles:
        if one.by == "name":
            assert one.role == role_of(one.metric)


@given(st.permutations(["loss", "nll_loss", "train_loss", "mse", "total_loss"]))
def test_the_choice_does_not_hang_on_the_order_of_the_series(order: list[str]) -> None:
    series = [SeriesRole("train", m, m, "loss", "train", "", "name", 10) for m in order]
    assert choose("train_loss", series).metric == "loss"
