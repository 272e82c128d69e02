"""Whether the weights in a published folder of transformers match the model in its config.json."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from shared.errors import UserError

WHOSE = "does config.json belong to these weights?"


def check_loaded(folder: str | Path, model: Any, report: Mapping[str, Any], replaced: Iterable[str] = ()) -> None:
    """UserError for weights that are missing, of another shape or not finite, and for more blocks than `model` has.

    report: `output_loading_info` of transformers, with `ignore_mismatched_sizes`. replaced: fields of config.json that
    options override; a number of layers among them drops blocks on purpose. Other weights, such as those of a decoder
    or a head, are silently ignored."""
    # The mask vector of pretraining: some files lack it, and no tower uses it.
    missing = sorted(name for name in report["missing_keys"] if not name.endswith("masked_spec_embed"))
    if missing:
        raise UserError(f"{folder}: {len(missing)} weights are missing, first {', '.join(missing[:3])}; {WHOSE}")
    shapes = sorted((str(name), tuple(there), tuple(here)) for name, there, here in report["mismatched_keys"])
    if shapes:
        first = "; ".join(f"{name} is {there}, not {here}" for name, there, here in shapes[:2])
        raise UserError(f"{folder}: {len(shapes)} weights do not fit config.json, first {first}; {WHOSE}")
    if not any(name.endswith("layers") for name in replaced):
        _check_blocks(folder, model, report["unexpected_keys"])
    check_finite(folder, model)


def check_finite(where: str | Path, model: nn.Module) -> None:
    """UserError, beginning with `where`, for a parameter with a NaN or infinite value."""
    bad = [name for name, parameter in model.named_parameters() if not parameter.isfinite().all()]
    if bad:
        more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
        raise UserError(f"{where}: {bad[0]}{more} have values that are not finite; download the weights again")


def _check_blocks(folder: str | Path, model: Any, unexpected: Iterable[str]) -> None:
    """UserError if the weights have more blocks than config.json says: the last ones would be dropped."""
    counts = {name: len(part) for name, part in model.named_modules() if isinstance(part, nn.ModuleList)}
    for name in sorted(unexpected):
        own = name.removeprefix(f"{model.base_model_prefix}.")
        block = re.match(r"(.+?)\.(\d+)\.", own)
        if block and int(block[2]) >= counts.get(block[1], int(block[2]) + 1):
            raise UserError(
                f"{folder}: config.json counts {counts[block[1]]} blocks, the weights hold more ({name}); {WHOSE}"
            )
