"""The order in which a model has its parameters, where a file has sorted them: known for common transformers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = ["model_order"]

#: Parts of a module in the order in which the libraries' code makes them; each line is one kind of module. What stands
#: before a colon is the first part of the names of the models that have it so.
_SEQUENCES = tuple(
    (line.partition(":")[0].strip() if ":" in line else "", tuple(line.rpartition(":")[2].split()))
    for line in """
    weight bias
    lora_A lora_B
    model lm_head score
    transformer lm_head score
    bert roberta distilbert cls lm_head pre_classifier classifier qa_outputs
    embed_tokens layers norm
    self_attn mlp input_layernorm post_attention_layernorm pre_feedforward_layernorm post_feedforward_layernorm
    q_proj k_proj v_proj o_proj q_norm k_norm
    k_proj v_proj q_proj out_proj
    gate_proj up_proj down_proj
    embeddings encoder transformer pooler
    bert: word_embeddings position_embeddings token_type_embeddings LayerNorm
    roberta: word_embeddings token_type_embeddings LayerNorm position_embeddings
    distilbert: word_embeddings position_embeddings LayerNorm
    attention intermediate output
    self output
    query key value
    dense LayerNorm
    dense layer_norm
    attention sa_layer_norm ffn output_layer_norm
    q_lin k_lin v_lin out_lin
    lin1 lin2
    dense out_proj
    wte wpe h ln_f
    ln_1 attn ln_2 mlp
    c_attn c_proj
    c_fc c_proj
    """.strip().splitlines()
)


def model_order(names: Iterable[str]) -> list[str] | None:
    """The names in the order of the model's own code; None where a module has parts that no known kind has.

    Numbers are in their order; parts of a module in that of the kinds of modules that have all of them, where these
    agree (`q_proj` and `v_proj` alone, as adapters have them, stand in either order). Held against transformers' own
    models in the tests.

    >>> model_order(["layers.0.mlp.down_proj.weight", "layers.0.mlp.gate_proj.weight", "embed_tokens.weight"])
    ['embed_tokens.weight', 'layers.0.mlp.gate_proj.weight', 'layers.0.mlp.down_proj.weight']
    >>> model_order(["conv.weight", "head.weight"]) is None
    True
    """
    return _ordered([(name.split("."), name) for name in names], 0)


def _ordered(members: Sequence[tuple[list[str], str]], depth: int) -> list[str] | None:
    """Members of one module, whose names have `depth` parts in common."""
    if len(members) < 2:
        return [name for _, name in members]
    parts: dict[str, list[tuple[list[str], str]]] = {}
    for path, name in members:
        if depth == len(path):
            return None  # the name of a module is that of a parameter too
        parts.setdefault(path[depth], []).append((path, name))
    order = _order_of_parts(list(parts), members[0][0][0])
    found: list[str] = []
    for part in order or ():
        inside = _ordered(parts[part], depth + 1)
        if inside is None:
            return None
        found += inside
    return None if order is None else found


def _order_of_parts(parts: list[str], root: str) -> list[str] | None:
    if len(parts) == 1:
        return parts
    if all(part.isdecimal() and len(part) < 10 for part in parts):
        return sorted(parts, key=int)
    known = [line for of, line in _SEQUENCES if of in ("", root) and set(parts) <= set(line)]
    orders = {tuple(sorted(parts, key=line.index)) for line in known}
    return list(orders.pop()) if len(orders) == 1 else None
