"""The commands that repeat a run: its recipe, or otherwise the single commands with their recorded options."""

import json
import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shared.errors import UserError
from shared.files import read_json
from stage2_fusion.data.feature_info import ExternalInfo
from stage2_fusion.report.content import Block, Code, NotFound, Text
from stage2_fusion.report.inputs import Inputs

RECIPE = "recipe.json"
"""In the folder of a recipe: its steps, recorded by `emit run`."""


def repeat_blocks(inputs: Inputs) -> list[Block]:
    """The commands to type, with an explanation."""
    steps = _recipe_steps(inputs)
    if steps is None:
        text = "Type these where the run was made; outputs get new names (_again), so nothing is replaced."
        return [Text(text), Code("\n".join(_commands(inputs)))]
    commands = Code("\n".join(step["command"] for step in steps))
    runs = dict.fromkeys(step["run"] for step in steps if step.get("run"))
    if not runs:
        return [Text("The steps of the recipe that made it, as they ran, in the folder where they ran."), commands]
    last = list(runs)[-1]
    text = "A recipe made it. In the same folder, the same line skips finished steps; another out= repeats all."
    return [Text(text), Code(last), Text("The steps, as they ran:"), commands]


def _recipe_steps(inputs: Inputs) -> list[dict[str, Any]] | None:
    """The finished steps of the recipe that wrote the evaluation, or the RUN if it has none; None without a recipe."""
    try:
        made = inputs.evaluation.path
    except NotFound:
        made = None
    given = Path(inputs.main.given).resolve()
    made = made.resolve() if made else given
    for folder in dict.fromkeys([given, *list(made.parents)[:4]]):
        try:
            content = read_json(folder / RECIPE, "list of what recipes have made", "")
            entries = content["steps"]
            steps = [entry for entry in entries.values() if isinstance(entry["command"], str)]
            outputs = {(folder / name).resolve() for entry in steps for name in entry["outputs"]}
        except (OSError, UserError, KeyError, TypeError, AttributeError):
            continue
        if made in outputs or made == folder or any(path in made.parents for path in outputs):
            return [step for step in steps if step.get("done") or step["command"].startswith("emit report ")]
    return None


def _commands(inputs: Inputs) -> list[str]:
    """The commands from the clip dataset to this report; outputs get the suffix _again."""
    lines: list[str] = []

    def add(*words: Any) -> None:
        lines.append(shlex.join(["emit", *(shown(word) if isinstance(word, Path) else str(word) for word in words)]))

    def path(name: str) -> Path | None:
        try:
            return getattr(inputs, name)
        except (NotFound, UserError):
            return None

    def again(old: Path) -> Path:
        return old.with_name(f"{old.name}_again")

    clips, align, features, fuse = map(path, ("clips_path", "align_run", "features_path", "fuse_run"))
    encoders = Path(inputs.features_info.encoders.path) if features else None
    if features and not inputs.features_info.encoders.kept:
        encoders = None
    made = again(encoders or align.with_name("encoders")) if align and clips else encoders
    if align and clips:
        add("align", "--config", align / "config.yaml", "--data", clips, "--run", again(align))
        add("export", again(align), "--which", exported(inputs) or "best", "--out", made)
    data = features
    external = inputs.features_info.external or {} if features else {}
    if features and clips and (made or external) and not inputs.features_info.precomputed:
        info, data = inputs.features_info, again(features)
        made_by: list[Any] = ["--encoders", made] if made else []
        made_by += external_options(external)
        options: list[Any] = ["--mixed_precision", "no" if info.precision == "fp32" else "bf16", "--seed", info.seed]
        if info.action_units:
            options += ["--blendshapes", Path(info.action_units.path)]
        add("encode", *made_by, "--data", clips, "--out", data, "--damaged_views", info.views, *options)
    if fuse and data:
        add("fuse", "--config", fuse / "config.yaml", "--data", data, "--run", again(fuse))
        add("evaluate", "--model", again(fuse) / "model", "--data", data, *_evaluate_options(inputs))
    add("report", *(run.given for run in inputs.runs))
    return lines


def external_options(external: Mapping[str, ExternalInfo]) -> list[str]:
    """The arguments of `emit encode` that read the same features of other tools."""
    words: list[str] = []
    further: dict[str, dict[str, Any]] = {}
    for name, about in external.items():
        options = about.options(name)
        words += ["--external", options.pop("external")]
        for option, value in options.items():
            further.setdefault(option, {})[name] = value
    return words + [word for option, values in further.items() for word in (f"--{option}", json.dumps(values))]


def exported(inputs: Inputs) -> str | None:
    """Which model of stage 1 computed the features, by the digest of its encoders: "best", "last", or None if
    unknown."""
    try:
        wanted, run = inputs.features_info.encoders.kept, inputs.align_run
    except (NotFound, UserError):
        return None
    for which in ("best", "last"):
        try:
            content = json.loads((run / which / "config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(content, dict) and content.get("digest") == wanted:
            return which
    return None


def _evaluate_options(inputs: Inputs) -> list[Any]:
    try:
        evaluation = inputs.evaluation
    except NotFound:
        return []
    info = evaluation.info
    options: list[Any] = ["--split", info.split or ""]
    if info.group:
        options += ["--groups", info.group]
    options += ["--bootstrap", evaluation.resamples, "--seed", evaluation.bootstrap_seed]
    if info.intervals:
        options += ["--coverage", info.intervals.asked]
    if info.ceiling is not None:
        try:
            options += ["--truth", inputs.truth_path]
        except NotFound:
            options += ["--truth", "CORPUS/truth.csv"]
    return options


def shown(path: Path) -> str:
    """A path as one types it: relative if it is below the current folder."""
    whole, here = os.path.abspath(path), os.getcwd()
    return os.path.relpath(whole, here) if Path(whole).is_relative_to(here) else whole
