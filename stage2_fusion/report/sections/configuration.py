"""How the run was made: versions, configurations, digests, and the commands that repeat it."""

import json
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from shared.errors import UserError
from stage2_fusion.report.content import Block, Code, Group, NotFound, Section, Table
from stage2_fusion.report.inputs import Inputs
from stage2_fusion.report.repeat import repeat_blocks

PACKAGES = ("emit-toolkit", "torch", "transformers", "open_clip_torch", "accelerate", "datasets", "numpy")
LONGEST = 20_000
"""Most characters of a configuration on the page."""


def configuration(inputs: Inputs) -> Section:
    """Facts in a table, files folded away."""
    section = Section("Configuration", "What was run, and how to run it again. Click on a line to open it.")
    section.blocks = [
        Table("What the score is based on", ["part", "value"], _facts(inputs)),
        Table("Versions that wrote this report", ["package", "version"], _versions()),
    ]
    for title, read in (
        ("Stage 1: config.yaml", lambda: (inputs.align_run / "config.yaml").read_text(encoding="utf-8")),
        ("Stage 2: config.yaml", lambda: (inputs.fuse_run / "config.yaml").read_text(encoding="utf-8")),
        ("Model options", lambda: _json(inputs.model_config.options)),
        ("Preparation of the clips", lambda: _json(inputs.features_info.data.prepare)),
        ("Evaluation: what it was made from", lambda: _json(inputs.evaluation.info.made_from)),
    ):
        try:
            block: Block = Code(_bounded(read()))
        except (NotFound, UserError, OSError, UnicodeDecodeError):
            section.missing.append(f"not found: {title[0].lower()}{title[1:]}")
            continue
        section.blocks.append(Group(title, [block], folded=True))
    section.blocks.append(Group("Commands that repeat it", repeat_blocks(inputs)))
    return section


def _facts(inputs: Inputs) -> list[list[str]]:
    rows: list[list[str]] = []

    def add(name: str, read: Any) -> None:
        try:
            value = read()
        except (NotFound, UserError):
            return
        if value not in (None, ""):
            rows.append([name, str(value)])

    add("model", lambda: f"{inputs.model_config.model} ({inputs.model_path})")
    add("evaluation", lambda: f"{inputs.evaluation.path}, split {inputs.evaluation.info.split or 'all'}")
    add("seed of the training", lambda: inputs.evaluation.info.training_seed)
    add("bootstrap", lambda: f"{inputs.evaluation.resamples} samples, seed {inputs.evaluation.bootstrap_seed}")
    add("features", lambda: f"{inputs.features_path} (digest {inputs.features_info.digest})")
    add("encoders", lambda: f"{inputs.features_info.encoders.path} (digest {inputs.features_info.encoders.digest})")
    add("towers", lambda: _towers(inputs))
    add("features of other tools", lambda: _tools(inputs))
    add("clips", lambda: f"{inputs.clips_path} (digest {inputs.clips.digest})")
    add("synthetic", lambda: "yes: drawn faces and voices" if inputs.model_config.trained_on.synthetic else "no")
    add(
        "training time of stage 2", lambda: _seconds(inputs.evaluation.info.sections.get("training", {}).get("seconds"))
    )
    return rows


def _towers(inputs: Inputs) -> str:
    encoders = inputs.features_info.encoders
    towers = encoders.config.get("towers")
    if not isinstance(towers, dict):
        return ""
    own = {name: tower for name, tower in towers.items() if isinstance(tower, dict) and name not in encoders.given}
    return ", ".join(f"{name} {tower.get('name')}" for name, tower in own.items())


def _tools(inputs: Inputs) -> str:
    """For each modality with features of another tool: the tool and the files."""
    info = inputs.features_info
    tools = {name: tool.describe(info.widths[name]) for name, tool in (info.encoders.external or {}).items()}
    files = {name: f"{about.path} (digest {about.digest})" for name, about in (info.external or {}).items()}
    return "; ".join(f"{name} of {tool}, {files.get(name, 'unknown files')}" for name, tool in tools.items())


def _seconds(value: Any) -> str:
    return f"{value:.0f} s" if isinstance(value, int | float) else ""


def _versions() -> list[list[str]]:
    rows = []
    for name in PACKAGES:
        try:
            rows.append([name, version(name)])
        except PackageNotFoundError:
            continue
    return rows


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


def _bounded(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}\n… {len(text) - LONGEST} more characters"
