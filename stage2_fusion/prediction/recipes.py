"""How clips are prepared for a model."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from shared.dataset.recipe import Recipe
from shared.errors import UserError
from stage2_fusion.models.model_config import FusionConfig


def make_recipe(settings: dict[str, Any], where: str = "") -> Recipe:
    """The settings of `emit prepare`. UserError, beginning with `where`, if they are of another version or out of
    range."""
    try:
        return Recipe.from_json(settings)
    except (TypeError, ValueError, UserError) as error:
        raise UserError(f"{where}: {error}" if where else str(error)) from None


def prediction_recipe(config: FusionConfig, source: str | Path, changes: dict[str, Any]) -> Recipe:
    """How clips are prepared for a model: like its training clips, with the `changes` that are not None. UserError if
    its config.json names a file as detector or recognizer and `changes` do not replace it: a model folder opens no
    files elsewhere."""
    changes = {name: value for name, value in changes.items() if value is not None}
    for name, builtin in (("detector", "haar"), ("transcribe", "")):
        value = config.prepare.get(name, builtin)
        if name not in changes and value != builtin:
            none = ', or "" to do without' if name == "transcribe" else ""
            raise UserError(
                f"{source}: its training clips were prepared with --{name} {value!s:.100}; a model folder opens no "
                f"file elsewhere: give --{name} with that file again{none}"
            )
    return make_recipe(config.prepare | changes, f"{source}: prepare")


def expected_recipe(config: FusionConfig, source: str | Path, changes: dict[str, Any]) -> Recipe:
    """Like `prediction_recipe`, with the sample rate that the audio encoder will most probably need. It is known before
    the encoder is loaded, so reading can begin early. UserError as there."""
    recipe = prediction_recipe(config, source, changes)
    rate: Any = config.encoders.config
    for name in ("towers", "audio", "options", "sample_rate"):
        rate = rate.get(name) if isinstance(rate, dict) else None
    return replace(recipe, sample_rates=[rate if rate in recipe.sample_rates else recipe.sample_rates[0]])
