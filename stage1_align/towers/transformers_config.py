"""Which fields a configuration of transformers may have here: the fields of its class, and none that names code.

A field such as `attn_implementation: OWNER/KERNEL` makes transformers fetch a kernel from a hub and run it, and a
`quantization_config` imports more packages. Attention implementations come from our own list.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shared.errors import UserError
from shared.files import read_object
from shared.registry import nearest
from shared.text import one_line

ATTENTION = ("eager", "sdpa")
"""Attention built into transformers and torch; other names may be kernels on a hub."""
INERT = (
    "chunk_size_feed_forward",
    "id2label",
    "is_encoder_decoder",
    "label2id",
    "output_attentions",
    "output_hidden_states",
    "problem_type",
    "return_dict",
)
"""Fields of every configuration that name neither code nor a location."""


def check_fields(config_class: Any, values: Mapping[str, Any], where: str) -> None:
    """UserError for a field that `config_class` does not declare, and for attention from another package."""
    known = _declared(config_class)
    for name, value in values.items():
        if name == "attn_implementation":
            _check_attention(name, value, where)
        elif name not in known:
            raise UserError(f"{where} has no field {name!r}: {nearest(str(name), known)}")


def build_config(config_class: Any, values: Mapping[str, Any], where: str) -> Any:
    """A configuration with these fields. UserError, beginning with `where`, for values that transformers refuses."""
    from huggingface_hub.errors import StrictDataclassError

    try:
        return config_class(**values)
    except StrictDataclassError as error:
        raise UserError(f"{where}: {one_line(error, 200)}") from None


def known_fields(config: Any) -> dict[str, Any]:
    """All fields declared by a configuration's class, so that new defaults in a later version change nothing, and no
    field that only its file had."""
    known = _declared(type(config))
    return {name: value for name, value in config.to_dict().items() if name in known}


def check_published(folder: Path) -> None:
    """UserError if the config.json of a published folder names code or packages that must not run here. (Its
    `auto_map` is ignored: `trust_remote_code` is always False.)"""
    content = read_object(Path(folder) / "config.json", "configuration of the encoder", "download the folder again")
    _check_published(content, f"{folder}/config.json")


def _check_published(content: Mapping[str, Any], where: str) -> None:
    for name, value in content.items():
        if "attn_implementation" in name or "experts_implementation" in name:
            _check_attention(name, value, where)
        elif name in ("quantization_config", "kernel_config", "use_kernels") and value:
            raise UserError(f"{where}: {name} is not supported; use the folder of the plain float weights")
        elif isinstance(value, Mapping):
            _check_published(value, where)


def _check_attention(name: str, value: Any, where: str) -> None:
    if value is not None and value not in ATTENTION:
        allowed = ", ".join(ATTENTION)
        raise UserError(f"{where}: {name} {value!r:.60} would run code from another package; use one of {allowed}")


def _declared(config_class: Any) -> set[str]:
    from transformers import PreTrainedConfig

    common = {field.name for field in dataclasses.fields(PreTrainedConfig)}
    own = {field.name for field in dataclasses.fields(config_class)} - common
    return own | set(INERT) | set(getattr(config_class, "attribute_map", {}))
