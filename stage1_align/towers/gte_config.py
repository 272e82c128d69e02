"""Alibaba's GTE text encoders (Zhang et al. 2024, arXiv 2407.19669). Their config.json names code on a hub, which is
never run: transformers has the same architecture, `gte`, and loads their weights by the published names."""

from pathlib import Path
from typing import Any

from shared.errors import UserError
from shared.files import read_json

PUBLISHED = "new"
"""Alibaba's name of the model type."""
SINCE = "5.18"
"""The first version of transformers with `gte`."""
FIXED = {
    "position_embedding_type": "rope",
    "layer_norm_type": "layer_norm",
    "pack_qkv": True,
    "logn_attention_scale": False,
    "rope_parameters": None,
}
"""{field missing in transformers' architecture: the only supported value}."""
SHARED = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "max_position_embeddings",
    "type_vocab_size",
    "initializer_range",
    "layer_norm_eps",
    "pad_token_id",
)


def gte_fields(folder: Path) -> dict[str, Any] | None:
    """Fields of transformers' GteConfig for a folder in Alibaba's layout; None for any other folder.

    UserError if transformers is too old, and for a configuration that it would compute differently.
    """
    published = read_json(folder / "config.json", "configuration of the encoder", "download the folder again")
    if not isinstance(published, dict) or published.get("model_type") != PUBLISHED:
        return None
    _check_version(folder)
    for name, value in FIXED.items():
        if published.get(name, value) != value:
            raise UserError(
                f"{folder}/config.json: {name} {published[name]!r} is not supported, only {value!r}; take a GTE "
                "checkpoint as Alibaba publishes it, such as Alibaba-NLP/gte-base-en-v1.5"
            )
    fields = {name: published[name] for name in SHARED if name in published}
    return {**fields, "rope_parameters": _rope_parameters(folder, published)}


def _check_version(folder: Path) -> None:
    import transformers

    if "gte" not in transformers.CONFIG_MAPPING:
        raise UserError(
            f"{folder}: GTE encoders need transformers {SINCE} or later, installed is {transformers.__version__}; "
            f"pip install 'transformers>={SINCE}'"
        )


def _rope_parameters(folder: Path, published: dict[str, Any]) -> dict[str, Any]:
    """The rotary position embedding in transformers' terms. Fixed NTK scaling by a factor f (Su 2023, kexue.fm/9706),
    with head dimension d and base b, rotates pair i by (b f)^(-2 i / d) / f^(2 / d) per token. In transformers, this is
    linear scaling by f^(2 / d) with base b f."""
    base, scaling = published.get("rope_theta", 10000.0), published.get("rope_scaling")
    if not scaling:
        return {"rope_type": "default", "rope_theta": base}
    kind, factor, rest = scaling.get("type"), scaling.get("factor"), set(scaling) - {"type", "factor"}
    if kind != "ntk" or not isinstance(factor, int | float) or factor < 1 or any(scaling[name] for name in rest):
        raise UserError(
            f"{folder}/config.json: rope_scaling {scaling} is not supported, only type ntk with a factor of 1 or more; "
            "take a GTE checkpoint as Alibaba publishes it, such as Alibaba-NLP/gte-base-en-v1.5"
        )
    head = published["hidden_size"] // published["num_attention_heads"]
    return {"rope_type": "linear", "rope_theta": base * factor, "factor": factor ** (2 / head)}
