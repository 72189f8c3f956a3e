"""Statistics of batches against slow and obvious versions, scipy and scikit-learn; odd shapes, NaN, nothing at all."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics.pairwise import cosine_similarity

from eventstream.attention_sharing import attention_parts, audio_positions
from eventstream.batch_names import conditioning, given_status, head_labels, output_items, returned_status
from eventstream.batch_statistics import POSITIONS, head_parts, input_parts, read, similarity_parts
from eventstream.batches import label_shift
from tests.eventstream.tiny_models import Spoken

SIZES = st.tuples(st.integers(1, 5), st.integers(1, 9), st.integers(2, 12), st.integers(0, 2**31))


def _case(size: tuple[int, int, int, int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    batch, length, classes, seed = size
    made = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, length, classes, generator=made) * 3
    labels = torch.randint(0, classes, (batch, length), generator=made)
    labels[torch.rand(batch, length, generator=made) < 0.3] = -100
    mask = (torch.rand(batch, length, generator=made) < 0.7).long()
    return logits, labels, mask


def _slow(logits: torch.Tensor, labels: torch.Tensor, shifted: bool) -> dict[str, float]:
    """Position by position, with scipy's entropy."""
    batch, length, _ = logits.shape
    entropies, hits = [], []
    for b in range(batch):
        for t in range(length):
            wanted = (labels[b, t + 1] if t + 1 < length else torch.tensor(-100)) if shifted else labels[b, t]
            if wanted == -100:
                continue
            p = np.exp(logits[b, t].double().numpy())
            entropies.append(scipy.stats.entropy(p / p.sum()))
            hits.append(float(logits[b, t].argmax() == wanted))
    found = {"h/min": float(logits.min()), "h/max": float(logits.max())}
    if hits:
        found |= {"h/entropy": float(np.mean(entropies)), "h/top1_agreement": float(np.mean(hits))}
    return found


@pytest.mark.parametrize("shifted", [True, False])
@given(size=SIZES)
@settings(max_examples=60, deadline=None)
def test_range_entropy_and_agreement_are_those_of_the_obvious_version(shifted: bool, size: tuple[int, int, int, int]):
    logits, labels, mask = _case(size)
    assert read(head_parts("h", logits, labels, mask, shifted)) == pytest.approx(
        _slow(logits, labels, shifted), rel=1e-4, abs=1e-6
    )


def test_an_unknown_alignment_tells_both_and_guesses_none():
    logits, labels, _ = _case((3, 6, 5, 0))
    found = read(head_parts("h", logits, labels, shifted=None))
    assert found["h/top1_agreement_next"] == _slow(logits, labels, True)["h/top1_agreement"]
    assert found["h/top1_agreement_same"] == _slow(logits, labels, False)["h/top1_agreement"]
    assert "h/top1_agreement" not in found


@pytest.mark.parametrize("rows", [POSITIONS + 1, 8 * POSITIONS, 5000])
def test_large_logits_are_sampled_all_over_and_the_means_stay_close(rows: int):
    made = torch.Generator().manual_seed(rows)
    logits = torch.randn(8, rows // 8, 16, generator=made)
    labels = logits.argmax(-1)
    labels[:, : rows // 16] = 0  # the first half of every row is wrong most of the time
    found = read(head_parts("h", logits, labels, shifted=False))
    exact = float((logits.argmax(-1) == labels).float().mean())
    assert found["h/top1_agreement"] == pytest.approx(exact, abs=0.08)
    p = torch.softmax(logits, -1)
    assert found["h/entropy"] == pytest.approx(float(-(p * p.log()).sum(-1).mean()), abs=0.05)


def test_masked_classes_are_no_part_of_the_range_and_nan_and_infinity_show():
    logits = torch.tensor([[1.0, -math.inf, 3.0]])
    found = read(head_parts("h", logits))
    assert found["h/min"] == 1.0 and found["h/max"] == 3.0 and found["h/entropy"] == pytest.approx(0.3653, abs=1e-4)
    assert math.isnan(read(head_parts("h", torch.tensor([[1.0, math.nan]])))["h/max"])
    assert read(head_parts("h", torch.tensor([[1.0, math.inf]])))["h/max"] == math.inf


@pytest.mark.parametrize(
    ("logits", "labels", "names"),
    [
        (torch.zeros(0, 4), None, set()),
        (torch.zeros(3, 0), None, set()),
        (torch.zeros(3, 1), None, {"h/min", "h/max"}),
        (torch.zeros(2, 3, 4), torch.full((2, 3), -100), {"h/min", "h/max"}),
        (torch.zeros(2, 3, 4), torch.zeros(3, 2, dtype=torch.long), {"h/min", "h/max", "h/entropy"}),
        (
            torch.zeros(2, 4, dtype=torch.bfloat16),
            torch.tensor([0, 1]),
            {"h/min", "h/max", "h/entropy", "h/top1_agreement"},
        ),
    ],
)
def test_what_cannot_be_told_is_left_out(logits: torch.Tensor, labels: torch.Tensor | None, names: set[str]):
    assert set(read(head_parts("h", logits, labels, shifted=True))) == names


@given(st.integers(1, 6), st.integers(1, 9), st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_lengths_and_padding_are_those_of_counting(batch: int, length: int, seed: int):
    made = torch.Generator().manual_seed(seed)
    mask = (torch.rand(batch, length, generator=made) < 0.6).long()
    found = read(input_parts({"attention_mask": mask, "audio_feature_attention_mask": mask[:, :1]}))
    lengths = [sum(row) for row in mask.tolist()]
    assert found["inputs/length_mean"] == pytest.approx(sum(lengths) / batch)
    assert (found["inputs/length_min"], found["inputs/length_max"]) == (min(lengths), max(lengths))
    assert found["inputs/padding_share"] == pytest.approx(1 - sum(lengths) / (batch * length))
    assert found["inputs/audio_feature/batch_size"] == batch


def test_padding_is_known_by_its_token_and_else_not_told():
    ids = torch.tensor([[5, 6, 0, 0]])
    assert read(input_parts({"input_ids": ids}, pad_token_id=0))["inputs/padding_share"] == 0.5
    assert "inputs/padding_share" not in read(input_parts({"input_ids": ids}))
    assert read(input_parts({"input_ids": ids}))["inputs/length_mean"] == 4
    assert read(input_parts({"input_values": torch.zeros(2, 5), "name": "x"})) == {}


def test_similarity_is_that_of_scikit_learn_and_refuses_what_does_not_fit():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(7, 16)), rng.normal(size=(7, 16))
    found = read(similarity_parts("s", a, torch.tensor(b)))
    pairs = np.diag(cosine_similarity(a, b))
    assert found["s"] == pytest.approx(pairs.mean(), abs=1e-6) and found["s_min"] == pytest.approx(
        pairs.min(), abs=1e-6
    )
    one = read(similarity_parts("s", a[0], b))
    assert one["s"] == pytest.approx(cosine_similarity(a[:1], b).mean(), abs=1e-6)
    with pytest.raises(ValueError, match=r"\(7, 16\) and \(6, 16\) cannot be compared; pass one reference"):
        similarity_parts("s", a, b[:6])


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(2, 7), st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_attention_shares_are_those_of_adding_weight_by_weight(
    layers: int, batch: int, heads: int, width: int, seed: int
):
    made = torch.Generator().manual_seed(seed)
    weights = [torch.softmax(torch.randn(batch, heads, width, width, generator=made), -1) for _ in range(layers)]
    audio = torch.rand(batch, width, generator=made) < 0.5
    mask = (torch.rand(batch, width, generator=made) < 0.8).long()
    found = read(attention_parts(weights, audio, mask))
    for name, queries, keys in (("audio_to_text", audio, ~audio), ("text_to_audio", ~audio, audio)):
        sums = [
            sum(float(layer[b, h, q, k]) for k in range(width) if keys[b, k] and mask[b, k])
            for layer in weights
            for h in range(heads)
            for b in range(batch)
            for q in range(width)
            if queries[b, q] and mask[b, q]
        ]
        both = bool((audio & (mask > 0)).any()) and bool((~audio & (mask > 0)).any())
        expected = {f"outputs/attention/{name}": float(np.mean(sums))} if both else {}
        assert {k: v for k, v in found.items() if name in k} == pytest.approx(expected, abs=1e-5)


def test_audio_is_where_the_caller_a_mask_or_the_configuration_says_and_else_unknown():
    ids = torch.tensor([[1, 90, 2, 91]])
    config = type("Config", (), {"audio_in_token_idx": 90, "audio_out_token_idx": 91})()
    assert audio_positions({"input_ids": ids}, config, None).tolist() == [[False, True, False, True]]
    assert audio_positions({"input_ids": ids, "audio_mask": ids == 2}, config, None).tolist() == [
        [False, False, True, False]
    ]
    assert audio_positions({"input_ids": ids, "mine": ids == 1}, config, "mine").tolist() == [
        [True, False, False, False]
    ]
    assert audio_positions({"input_ids": ids}, None, lambda batch: batch["input_ids"] > 1).tolist() == [
        [False, True, True, True]
    ]
    assert audio_positions({"input_ids": ids}, None, None) is None
    assert audio_positions({"input_ids": ids, "audio_mask": torch.ones(1, 9)}, None, None) is None


def test_a_summary_is_read_from_the_device_at_once(monkeypatch: pytest.MonkeyPatch):
    reads: list[str] = []
    listing = torch.Tensor.tolist

    def counted(tensor: torch.Tensor) -> Any:
        reads.append("tolist")
        return listing(tensor)

    logits, labels, mask = _case((3, 6, 5, 0))
    batch = {"attention_mask": mask, "labels": labels}
    for name in ("item", "__bool__", "__float__", "__int__", "cpu", "numpy"):
        monkeypatch.setattr(torch.Tensor, name, lambda *_: pytest.fail("a statistic waited for the device"))
    parts = input_parts(batch) | head_parts("h", logits, labels, mask, True)
    parts |= attention_parts([torch.full((3, 1, 6, 6), 1 / 6)], mask == 1)
    monkeypatch.setattr(torch.Tensor, "tolist", counted)
    assert len(read(parts)) == 12 and reads == ["tolist"]


def test_names_say_what_tensors_are():
    assert conditioning("conditioning_latents") and conditioning("ref_mel") and conditioning("spk_emb")
    assert (
        not conditioning("input_ids")
        and not conditioning("condition_free")
        and not conditioning("audio_feature_lengths")
    )
    assert head_labels("mel_logits", {"mel_labels": 1}) == "mel_labels"
    assert head_labels("start_logits", {"labels": 1}) is None
    assert given_status({"inputs_embeds": 1, "input_ids": None}, ()) == {"inputs_embeds": "present"}
    tensor = torch.zeros(2, 3)
    assert list(output_items((torch.zeros(()), tensor, None, tensor))) == ["loss", "logits", "3"]
    assert list(output_items(tensor)) == ["logits"] and list(output_items(torch.zeros(3))) == ["0"]
    assert returned_status(Spoken(audio_logits=tensor)) == {"audio_logits": "present", "text_logits": "not returned"}


@pytest.mark.parametrize(
    ("name", "decoder", "shift"),
    [
        ("LlamaForCausalLM", False, True),
        ("GPT2LMHeadModel", False, True),
        ("T5ForConditionalGeneration", True, False),
        ("LlavaForConditionalGeneration", False, True),
        ("BertForMaskedLM", False, False),
        ("HiggsAudioModel", False, None),
    ],
)
def test_the_class_says_whether_labels_are_the_next_tokens(name: str, decoder: bool, shift: bool | None):
    config = type("Config", (), {"is_encoder_decoder": decoder})()
    assert label_shift(type(name, (), {"config": config})()) is shift
