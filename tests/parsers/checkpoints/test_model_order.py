"""The order of parameters in transformers' own models, from names that a file has sorted."""

from __future__ import annotations

import pytest
import torch
import transformers

from parsers.checkpoints.model_order import model_order

SMALL = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 11,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 20,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
BERT = {key: value for key, value in SMALL.items() if key not in ("num_key_value_heads", "head_dim")}
GPT2 = {
    "vocab_size": 40,
    "n_embd": 16,
    "n_layer": 11,
    "n_head": 2,
    "n_positions": 20,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
DISTIL = {"vocab_size": 40, "dim": 16, "hidden_dim": 24, "n_layers": 11, "n_heads": 2, "max_position_embeddings": 20}


@pytest.mark.parametrize(
    ("model", "config", "size"),
    [
        ("LlamaForCausalLM", "LlamaConfig", SMALL),
        ("MistralForCausalLM", "MistralConfig", SMALL),
        ("Qwen2ForCausalLM", "Qwen2Config", SMALL),
        ("Qwen3ForCausalLM", "Qwen3Config", SMALL),
        ("Gemma2ForCausalLM", "Gemma2Config", SMALL),
        ("LlamaForSequenceClassification", "LlamaConfig", SMALL),
        ("BertForSequenceClassification", "BertConfig", BERT),
        ("RobertaForSequenceClassification", "RobertaConfig", BERT),
        ("DistilBertForSequenceClassification", "DistilBertConfig", DISTIL),
        ("GPT2LMHeadModel", "GPT2Config", GPT2),
    ],
)
def test_the_order_is_that_of_the_models_own_code(model: str, config: str, size: dict[str, int]) -> None:
    with torch.device("meta"):
        made = getattr(transformers, model)(getattr(transformers, config)(**size))
    names = [name for name, _ in made.named_parameters()]
    assert model_order(sorted(names)) == names


def test_a_module_of_no_known_kind_has_no_known_order() -> None:
    assert model_order(["a.conv.weight", "a.shortcut.weight"]) is None
    assert model_order(["a.weight", "a.bias", "a.scale"]) is None
    assert model_order(["a", "a.weight"]) is None
    assert model_order(["attn.q_proj.weight", "attn.v_proj.weight"]) is None
    assert model_order([]) == []
    assert model_order(["only.one"]) == ["only.one"]
