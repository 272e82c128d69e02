"""Allowed ranges of options: every option of every command has one, and every way to give a value checks it."""

import dataclasses
import importlib
import math
import re
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from shared import config as configuration
from shared.errors import UserError
from shared.options.ranges import CheckedOptions, Fraction, PositiveInt, ProperFraction, Range, Seed, wrong_values
from shared.synth.config import SynthConfig
from stage1_align.config import PairConfig, SourceConfig
from stage1_align.config import TrainConfig as AlignTrainConfig
from stage2_fusion.commands.baseline import BaselineConfig
from stage2_fusion.commands.robustness import RobustnessConfig
from stage2_fusion.commands.search import SearchConfig
from stage2_fusion.config import FuseConfig
from stage2_fusion.config import LossConfig as FuseLossConfig
from stage2_fusion.config import TrainConfig as FuseTrainConfig

ROOT = Path(__file__).parents[3]
PACKAGES = ("shared", "stage1_align", "stage2_fusion")
WRONG = (math.nan, math.inf, -math.inf, -(10**30), 10**30, True, "3", [1])


@dataclass
class Inner(CheckedOptions):
    """Nested options."""

    rate: ProperFraction = 0.1


@dataclass
class Outer(CheckedOptions):
    """Options of every shape."""

    count: PositiveInt = 1
    seed: Seed = 0
    maybe: PositiveInt | None = None
    layer: PositiveInt | str = "last"
    shares: list[Fraction] = field(default_factory=list)
    factors: dict[str, Fraction] = field(default_factory=dict)
    pair: tuple[Fraction, ...] = (0.0,)
    inner: Inner = field(default_factory=Inner)
    parts: list[Inner] = field(default_factory=list)
    other: Inner | None = None


def option_classes() -> list[type]:
    """Every dataclass of options of the product, found by its base class."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if re.search(r"^class .*(Options|Config|Recipe)\b", path.read_text(), re.M):
                importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    found, queue = [], [CheckedOptions]
    while queue:
        queue += (below := queue.pop().__subclasses__())
        found += [known for known in below if known.__module__.partition(".")[0] in PACKAGES]
    return sorted(found, key=lambda known: (known.__module__, known.__name__))


CLASSES = option_classes()


def leaves(hint: Any) -> list[Any]:
    """The types inside a type: `list[Fraction] | None` holds Fraction and None."""
    parts = typing.get_args(hint)
    is_leaf = typing.get_origin(hint) is typing.Annotated or not parts
    return [hint] if is_leaf else [leaf for part in parts for leaf in leaves(part)]


def test_every_numeric_option_declares_its_range():
    assert {"FuseConfig", "AlignConfig", "Recipe", "MelCnnOptions", "PredictConfig"} <= {c.__name__ for c in CLASSES}
    for known in CLASSES:
        for name, hint in typing.get_type_hints(known, include_extras=True).items():
            assert not any(leaf in (int, float) for leaf in leaves(hint)), f"{known.__name__}.{name} has no range"


def test_what_parse_reads_and_what_a_registry_builds_are_options():
    texts = [path.read_text() for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    parsed = {name for text in texts for name in re.findall(r"configuration\.parse\(\s*(\w+)", text)}
    assert len(parsed) >= 18 and parsed <= {known.__name__ for known in CLASSES}
    from shared.layouts.registry import LAYOUTS
    from stage1_align.towers import TOWERS
    from stage2_fusion.models import MODELS

    families = [(MODELS, "Options"), (LAYOUTS, ""), *((towers, "Options") for towers in TOWERS.values())]
    for registry, attribute in families:
        for name in registry.names():
            part = registry.get(name)
            assert issubclass(getattr(part, attribute) if attribute else part, CheckedOptions), name


@pytest.mark.parametrize("known", CLASSES, ids=lambda known: f"{known.__module__}.{known.__name__}")
def test_wrong_number_is_refused_for_every_option_however_it_is_made(known):
    hints = typing.get_type_hints(known, include_extras=True)
    for option in dataclasses.fields(known):
        hint = hints[option.name]
        if typing.get_origin(hint) is not typing.Annotated or not isinstance(hint.__metadata__[0], Range):
            continue
        whole, (limit,) = typing.get_args(hint)[0] is int, hint.__metadata__
        assert limit.low in limit or limit.open_low
        for value in (*WRONG, None, *([limit.low + 0.5] if whole else [])):
            (told,) = wrong_values(known, {option.name: value}, "--")
            assert told == f"--{option.name} is {value!r}: expected a {'whole ' if whole else ''}number {limit!r}"
        made = object.__new__(known)  # as a constructor does
        for each in dataclasses.fields(known):
            setattr(made, each.name, None if each is not option else math.nan)
        with pytest.raises(UserError, match=rf"^{known.__name__}\.\w+ is "):
            made.__post_init__()


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"count": 0}, "count is 0: expected a whole number from 1 to 1000000000"),
        ({"seed": -1}, "seed is -1: expected a whole number from 0 to 9223372036854775807"),
        ({"maybe": 0}, "maybe is 0"),
        ({"layer": -5}, "layer is -5"),
        ({"shares": [0.5, 2.0]}, r"shares\[1\] is 2.0: expected a number from 0 to 1"),
        ({"factors": {"a": -1.0}}, r"factors\.a is -1.0"),
        ({"pair": (0.0, 0.0, 1.5)}, r"pair\[2\] is 1.5"),
        ({"inner": {"rate": 1.0}}, r"inner\.rate is 1.0: expected a number from 0 to below 1"),
        ({"parts": [{"rate": 0.5}, {"rate": -0.5}]}, r"parts\[1\]\.rate is -0.5"),
        ({"other": {"rate": 7.0}}, r"other\.rate is 7.0"),
    ],
)
def test_value_outside_its_range_is_named_with_what_is_allowed(values, told, capsys):
    with pytest.raises(UserError, match=rf"^the model: {told}"):
        configuration.build(Outer, values, "the model")
    words = [f"--{name}={value if not isinstance(value, tuple) else list(value)}" for name, value in values.items()]
    with pytest.raises(SystemExit) as stop:
        configuration.parse(Outer, words, prog="emit test", example="")
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith("error: --" + told.partition(":")[0].replace("\\", ""))


def test_values_inside_their_ranges_are_taken():
    values = {"maybe": None, "layer": "last", "shares": [0, 1], "pair": [0.5, 1], "parts": [{"rate": 0}], "other": None}
    made = configuration.build(Outer, values, "here")
    assert made.shares == [0, 1] and made.parts == [Inner(0.0)]
    assert configuration.build(Outer, {"layer": 3, "seed": 2**63 - 1}, "here").layer == 3


def test_nested_and_direct_construction_in_python_is_checked():
    for make in (
        lambda: AlignTrainConfig(ema=1.0),
        lambda: FuseTrainConfig(weight_decay=-1.0),
        lambda: FuseTrainConfig(batch_size=True),
        lambda: FuseLossConfig(memory=-5),
        lambda: FuseConfig(Path("a"), Path("b"), seed=None),  # type: ignore[arg-type]
        lambda: SearchConfig(data=Path("a"), space=Path("b"), out=Path("c"), workers=0),
        lambda: SynthConfig(Path("a"), clips=2),
    ):
        with pytest.raises(UserError, match=r"^\w+Config\.\w+ is .*: expected a (whole )?number "):
            make()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("options:", "--options is null: expected names with values"),
        ("loss: {branches: }", "--loss.branches is null: expected names with values"),
        ("train: {trackers: }", "--train.trackers is null: expected a list"),
        ("model: null", "--model is null: expected a text"),
    ],
)
def test_null_in_place_of_names_a_list_or_a_text_is_refused(text, told, tmp_path, capsys):
    (tmp_path / "fuse.yaml").write_text(text)
    with pytest.raises(SystemExit):
        configuration.parse(
            FuseConfig, ["--config", str(tmp_path / "fuse.yaml"), "--data", "a", "--run", "b"], prog="emit", example=""
        )
    assert told in capsys.readouterr().err


def test_what_is_listed_twice_is_refused():
    for make in (
        lambda: PairConfig(captions=["labels", "labels"]),
        lambda: PairConfig(sources=[SourceConfig(path="a"), SourceConfig(path="a")]),
        lambda: BaselineConfig(Path("a"), Path("b"), modalities=["text", "audio", "text"]),
        lambda: RobustnessConfig(["m"], Path("a"), shares=[0.5, 0.5]),
    ):
        with pytest.raises(UserError, match="listed twice; list "):
            make()


def test_range_says_its_ends():
    assert repr(Range(0, 1, open_low=True)) == "above 0 to 1"
    assert repr(Range(0, 1, open_high=True)) == "from 0 to below 1"
    assert math.nan not in Range(-math.inf, math.inf)
