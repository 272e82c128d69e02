"""The space of a search: which options vary, over which values, and the assignments drawn from it."""

import itertools
import json
import math
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shared.config import build, to_dict
from shared.errors import UserError
from shared.options.ranges import wrong_values
from shared.options.yaml_files import read_yaml, truth
from shared.registry import nearest
from shared.training.sampling import derive_seed
from stage2_fusion.config import FuseConfig
from stage2_fusion.models import MODELS

MAX_REPEATS = 1000
"""A small space is exhausted after this many draws without a new assignment."""

SHIPPED_SPACES = {path.stem: path for path in Path(__file__).parent.glob("*.yaml")}
"""{name: file} of the spaces that can be given by name."""

Choice = list[Any] | dict[str, Any]
"""A list of values, or a range {"low", "high", "log"}."""


def read_space(path: Path, config: FuseConfig) -> dict[str, Choice]:
    """{option: choice} of a YAML file, such as {train.lr: {low: 1e-4, high: 1e-2, log: true}}. UserError for an unknown
    option, an impossible range, and a value that `emit fuse` would refuse. config: the base configuration."""
    try:
        space = read_yaml(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    if not isinstance(space, dict) or not space:
        raise UserError(f"{path}: give options and what they may be, such as 'options.width: [32, 64]'")
    space = {str(option): _read_choice(choice, f"{path}: {option}") for option, choice in space.items()}
    for option, choice in space.items():
        _check_option(option, config, path)
        for value in choice if isinstance(choice, list) else (choice["low"], choice["high"]):
            _check_value(option, value, config, path, any_model="model" in space)
    return space


def _read_choice(choice: Any, where: str) -> Choice:
    """A list of distinct values, or a range of two numbers. UserError, beginning with `where`, for anything else."""
    if isinstance(choice, list) and choice:
        texts = [json.dumps(value, sort_keys=True) for value in choice]
        for text in texts:
            if texts.count(text) > 1:
                raise UserError(f"{where}: {text} is listed twice; list each value once")
        return choice
    if isinstance(choice, dict) and {"low", "high"} <= choice.keys() <= {"low", "high", "log"}:
        low, high, log = choice["low"], choice["high"], truth(choice.get("log", False))
        numbers = all(isinstance(end, int | float) and not isinstance(end, bool) for end in (low, high))
        if numbers and log is not None and -math.inf < low < high < math.inf and (low > 0 or not log):
            return {"low": low, "high": high, "log": log}
    raise UserError(f"{where} is {choice}; give a list, or low and high with low < high (above 0 with log: true)")


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
            return  # options of the model, or another mapping
        owner = FuseConfig if section is config else section
        known = [field.name for field in fields(owner)] if is_dataclass(owner) else []
        if part not in known or option == "run":
            raise UserError(f"{path}: `emit fuse` has no option {option!r}: {nearest(part, known or [option])}")
        section = getattr(section, part)


def _check_value(option: str, value: Any, config: FuseConfig, path: Path, any_model: bool) -> None:
    """UserError for a value that every trial would refuse. any_model: the space varies the model, so its options are
    only checked by the trials."""
    section, _, name = option.partition(".")
    if section != "options":
        base = {field.name: to_dict(config)[field.name] for field in fields(FuseConfig)}
        build(FuseConfig, assign(base, {option: value}), f"{path}: {option}")
    elif name and not any_model:
        known = MODELS.get(config.model).Options
        if name not in {field.name for field in fields(known)}:
            hint = nearest(name, (field.name for field in fields(known)))
            raise UserError(f"{path}: {config.model} has no option {name!r}: {hint}")
        for problem in wrong_values(known, {name: value}, "options."):
            raise UserError(f"{path}: {problem}")


def _draw(choice: Choice, rng: np.random.Generator) -> Any:
    if isinstance(choice, list):
        return choice[int(rng.integers(len(choice)))]
    low, high, log = choice["low"], choice["high"], choice.get("log")
    whole = isinstance(low, int) and isinstance(high, int)
    ends = (low - 0.5, high + 0.5) if whole else (low, high)
    ends = np.log(np.maximum(ends, 1e-300)) if log else ends
    value = float(rng.uniform(*ends))
    value = float(np.exp(value)) if log else value
    return int(np.clip(round(value), low, high)) if whole else float(np.clip(float(f"{value:.4g}"), low, high))
