"""The published weights that a recipe starts from: their origin, their licenses, and what to do if they are missing."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from shared.errors import UserError
from shared.pipeline.recipe_file import Checkpoint, PipelineRecipe


def named_weights(recipe: PipelineRecipe, values: Mapping[str, Any]) -> Iterator[tuple[str, Path, Checkpoint]]:
    """(variable, folder, expected weights) of the variables that name weights and are set."""
    for name, variable in recipe.variables.items():
        if variable.checkpoint and values[name] is not None:
            yield name, Path(values[name]), variable.checkpoint


def require_weights(recipe: PipelineRecipe, values: Mapping[str, Any]) -> None:
    """UserError with the download commands, in one line, if weights are not where their variables say."""
    missing = [
        f"{path} ({_why(path)}; license {checkpoint.license}): hf download {checkpoint.name} --local-dir {path}"
        for name, path, checkpoint in named_weights(recipe, values)
        if _why(path)
    ]
    names = "=DIR, ".join(name for name, path, _ in named_weights(recipe, values) if _why(path))
    if missing:
        raise UserError(f"published weights are missing; download them, or give {names}=DIR: {'; '.join(missing)}")


def license_lines(recipe: PipelineRecipe, values: Mapping[str, Any]) -> list[str]:
    """What a person must know before training from these weights, a line each."""
    return [
        f"{name}: {path}, published as {checkpoint.name}, {checkpoint.terms}"
        for name, path, checkpoint in named_weights(recipe, values)
    ]


def _why(path: Path) -> str:
    """Why a path has no published model to read, in words; "" if it has one."""
    if path.is_file() or (path.is_dir() and any(path.glob("*config.json"))):
        return ""
    return "has no config.json" if path.is_dir() else "no such folder"
