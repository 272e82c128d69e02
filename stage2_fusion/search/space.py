"""The space of a search: which options vary, over which values, and the assignments drawn from it."""

import itertools
import json
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from shared.errors import UserError
from shared.registry import nearest
from shared.text import one_line
from shared.training.sampling import derive_seed
from stage2_fusion.config import FuseConfig

MAX_REPEATS = 1000
"""A small space is exhausted after this many draws without a new assignment."""

Choice = list[Any] | dict[str, Any]
"""A list of values, or a range {"low", "high", "log"}."""


def read_space(path: Path, config: FuseConfig) -> dict[str, Choice]:
    """{option: choice} of a YAML file, such as {train.lr: {low: 1.0e-4, high: 1.0e-2, log: true}}. UserError for an
    unknown option or an impossible range. config: the base configuration, whose options they are."""
    try:
        space = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"{path}: cannot be read as YAML ({one_line(error, 160)})") from None
    if not isinstance(space, dict) or not space:
        raise UserError(f"{path}: give options and what they may be, such as 'options.width: [32, 64]'")
    for option, choice in space.items():
        _check_option(str(option), config, path)
        if isinstance(choice, list) and choice:
            continue
        is_range = isinstance(choice, dict) and {"low", "high"} <= choice.keys() <= {"low", "high", "log"}
        if not is_range or not choice["low"] < choice["high"] or (choice.get("log") and choice["low"] <= 0):
            raise UserError(
                f"{path}: {option} is {choice}; give a list, or low and high with low < high (above 0 with log: true)"
            )
    return space


def draw_assignments(space: dict[str, Choice], method: str, seed: int) -> Iterator[dict[str, Any]]:
    """Distinct assignments {option: value}, always in the same order. method: "random" or "grid"."""
    if method == "grid":
        for option, choice in space.items():
            if isinstance(choice, dict):
                raise UserError(f"--method grid: {option} is a range; list its values, or search at random")
        yield from (dict(zip(space, values, strict=True)) for values in itertools.product(*space.values()))
        return
    drawn, repeats = set(), 0
    for number in itertools.count():
        values = {
            option: _draw(choice, np.random.default_rng(derive_seed("search", seed, number, option)))
            for option, choice in space.items()
        }
        key = json.dumps(values, default=str)
        repeats = repeats + 1 if key in drawn else 0
        if repeats > MAX_REPEATS:
            return
        if not repeats:
            drawn.add(key)
            yield values


def assign(base: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """A copy of a nested configuration with the options of an assignment, such as {"train.lr": 0.001}."""
    config = json.loads(json.dumps(base))
    for option, value in values.items():
        *sections, name = option.split(".")
        section = config
        for key in sections:
            section = section.setdefault(key, {})
        section[name] = value
    return config


def _check_option(option: str, config: FuseConfig, path: Path) -> None:
    section: Any = config
    for part in option.split("."):
        if isinstance(section, dict):
            return  # options of the model are checked by its trial
        owner = FuseConfig if section is config else section
        known = [field.name for field in fields(owner)] if is_dataclass(owner) else []
        if part not in known or option == "run":
            raise UserError(f"{path}: `emit fuse` has no option {option!r}: {nearest(part, known or [option])}")
        section = getattr(section, part)


def _draw(choice: Choice, rng: np.random.Generator) -> Any:
    if isinstance(choice, list):
        return choice[int(rng.integers(len(choice)))]
    low, high, log = choice["low"], choice["high"], choice.get("log")
    whole = isinstance(low, int) and isinstance(high, int)
    ends = (low - 0.5, high + 0.5) if whole else (low, high)
    ends = np.log(np.maximum(ends, 1e-300)) if log else ends
    value = float(rng.uniform(*ends))
    value = float(np.exp(value)) if log else value
    return int(np.clip(round(value), low, high)) if whole else float(f"{value:.4g}")
