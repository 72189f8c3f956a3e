"""Configuration out of TrainingArguments: what opens doors never leaves the process, what configures always does."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstream.training_arguments import lr_plan, settings, without_secrets
from tests.eventstream.tiny_models import arguments, language_model

SECRETS = [
    ("hub_token", "x"),
    ("push_to_hub_token", "x"),
    ("token", "x"),
    ("WANDB_API_KEY", "x"),
    ("aws_secret_access_key", "x"),
    ("password", "x"),
    ("anything", "hf_" + "a1B2" * 8),
    ("anything", "sk-proj-" + "a1B2" * 8),
    ("anything", "https://user:word@host.example/path"),
]
HARMLESS = [
    ("eos_token", "</s>"),
    ("pad_token", "<pad>"),
    ("eos_token_id", 2),
    ("average_tokens_across_devices", True),
    ("include_num_input_tokens_seen", "no"),
    ("run_name", "sk-learn-like-experiment-number-one"),
    ("url", "https://host.example:8080/path"),
    ("keys_to_ignore_at_inference", ["past_key_values"]),
]


@pytest.mark.parametrize(("name", "value"), SECRETS)
def test_a_secret_is_left_out_however_deep_it_stands(name: str, value: Any):
    deep = {"deepspeed": {"stages": [{"keep": 1, name: value}]}}
    assert without_secrets(deep) == {"deepspeed": {"stages": [{"keep": 1}]}}


@pytest.mark.parametrize(("name", "value"), HARMLESS)
def test_what_is_no_secret_stays(name: str, value: Any):
    assert without_secrets({"a": [{name: value}]}) == {"a": [{name: value}]}


@given(
    st.recursive(
        st.integers() | st.text(max_size=5), lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=5), inner)
    )
)
def test_other_values_are_not_touched(value: Any):
    def count(inner: Any) -> int:
        if isinstance(inner, dict):
            return 1 + sum(count(v) for v in inner.values())
        return 1 + sum(map(count, inner)) if isinstance(inner, list) else 1

    assert "token" in str(value) or count(without_secrets(value)) == count(value)


def test_the_arguments_of_the_trainer_stand_under_their_own_names_without_host_and_secret(tmp_path: Path):
    found = settings(arguments(tmp_path, hub_token="secret", learning_rate=0.25), language_model())
    assert found["learning_rate"] == 0.25 and found["max_steps"] == 12 and found["optim"]
    assert not {"hub_token", "logging_dir", "local_rank"} & set(found) and None not in found.values()
    assert "secret" not in str(found)
    assert found["model"]["config"]["n_embd"] == 16 and found["model"]["trainable"] == found["model"]["parameters"]


def test_large_tables_of_class_names_are_left_out():
    config = SimpleNamespace(to_dict=lambda: {"id2label": {i: str(i) for i in range(1000)}, "width": 4})
    assert settings(SimpleNamespace(), SimpleNamespace(config=config))["model"]["config"] == {"width": 4}


@pytest.mark.parametrize(("warm", "steps"), [(5, 5), (0.25, 30)])
def test_warm_up_is_told_in_steps_also_where_it_was_given_as_a_share(tmp_path: Path, warm: float, steps: int):
    plan = lr_plan(arguments(tmp_path, warmup_steps=warm, lr_scheduler_type="cosine"), 120)
    assert plan == {"schedule": "cosine", "peak": 5e-5, "warmup_steps": steps, "total_steps": 120}
