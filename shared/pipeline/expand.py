"""Expanding a recipe and the values of its variables into command lines."""

import itertools
import json
import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shared.errors import UsageError, UserError
from shared.options.yaml_files import parse_yaml, truth
from shared.pipeline.recipe_file import PLACEHOLDER, Loop, PipelineRecipe, Step, Variable, all_steps, command_words
from shared.registry import nearest


@dataclass(frozen=True)
class CommandLine:
    """One step of a run: its name and the words of its command."""

    name: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return shlex.join(self.words)


def parse_assignments(recipe: PipelineRecipe, words: Sequence[str]) -> dict[str, str]:
    """{variable: text} from arguments such as `clips=200` or `--clips=200`. UsageError for any other form, an unknown
    name, or a duplicate name."""
    given: dict[str, str] = {}
    for word in words:
        name, sign, value = word.partition("=")
        name = name.removeprefix("--")
        if name in recipe.variables and not sign:
            raise UsageError(f"{word}: variables of a recipe are written {name}=VALUE")
        if not sign:
            raise UsageError(f"{word}: expected name=value; {nearest(name, recipe.variables)}")
        if name not in recipe.variables:
            raise UsageError(
                f"{word}: the recipe {recipe.name} has no variable {name!r}: {nearest(name, recipe.variables)}"
            )
        if name in given:
            raise UsageError(f"{word}: {name} is given twice; give it once")
        given[name] = value
    return given


def resolve(recipe: PipelineRecipe, given: Mapping[str, str]) -> dict[str, Any]:
    """The value of each variable: as given, or its default. UsageError if it is missing or of the wrong type."""
    values: dict[str, Any] = {}
    for name, variable in recipe.variables.items():
        if name in given:
            values[name] = _typed(variable, given[name])
        elif variable.required:
            raise UsageError(f"{name} is missing: give {name}=VALUE ({variable.help.rstrip('.')})")
        elif isinstance(variable.default, str):
            values[name] = substitute(variable.default, values)
        else:
            values[name] = variable.default
        if variable.checkpoint and values[name] is not None:  # a path, even if it is a single name
            values[name] = os.path.join(os.path.dirname(values[name]) or os.curdir, os.path.basename(values[name]))
    return values


def _typed(variable: Variable, text: str) -> Any:
    """A text converted to the type of the variable's default; unchanged if that is text."""
    name, default = variable.name, variable.default
    if text.strip() == "null" and not variable.required and name != "out":
        return None
    if not text.strip():
        if variable.required or default is not None:
            raise UsageError(f"{name}= is empty: {variable.help}")
        return None
    if isinstance(default, bool):
        value = truth(text)
        if value is None:
            raise UsageError(f"{name}={text}: expected true or false")
        return value
    if isinstance(default, int | float):
        value = parse_yaml(text, name)
        number = int if isinstance(default, int) else int | float
        if isinstance(value, bool) or not isinstance(value, number):
            raise UsageError(
                f"{name}={text}: expected a {'whole ' * isinstance(default, int)}number, such as {default}"
            )
        return value
    if isinstance(default, list):
        value = parse_yaml(text if text.lstrip().startswith("[") else f"[{text}]", name)
        if not isinstance(value, list) or any(isinstance(each, dict | list) or each is None for each in value):
            raise UsageError(f"{name}={text}: expected a list, such as {','.join(map(str, default))}")
        if len({str(each) for each in value}) < len(value):
            raise UsageError(f"{name}={text}: a value is listed twice; list it once")
        return value
    return os.path.expanduser(text) if text.startswith("~/") else text  # zsh leaves name=~/x to the command


def expand(recipe: PipelineRecipe, values: Mapping[str, Any]) -> list[CommandLine]:
    """The command lines, in order: loops unrolled, conditions decided, variables filled in. UserError if none is
    left."""
    lines = list(_expand(recipe.steps, values, []))
    if not lines:
        raise UserError(f"{recipe.file}: no step to run with these variables; `if` and `for` exclude all of them")
    return lines


def _expand(steps: Sequence[Step | Loop], values: Mapping[str, Any], path: list[str]) -> Iterator[CommandLine]:
    for step in steps:
        if step.condition and not _holds(step.condition, values):
            continue
        if isinstance(step, Step):
            words = command_words(step.run, f"step {step.name!r}")
            name = " ".join([step.name, *([f"({', '.join(path)})"] if path else [])])
            yield CommandLine(name, tuple(_fill(words, values)))
            continue
        lists = {name: values[of] if isinstance(of, str) else of for name, of in step.over.items()}
        for name, items in lists.items():
            if not isinstance(items, list):
                raise UserError(
                    f"for: {name}: the variable {step.over[name]} is {items!r}, not a list; make its default a list"
                )
        for chosen in itertools.product(*lists.values()):
            inner = dict(zip(lists, chosen, strict=True))
            shown = [f"{name} {value}" for name, value in inner.items()]
            yield from _expand(step.steps, {**values, **inner}, path + shown)


def _holds(condition: str, values: Mapping[str, Any]) -> bool:
    negated = condition.startswith("not ")
    return bool(values[condition.removeprefix("not ").strip()]) != negated


def _fill(words: Sequence[str], values: Mapping[str, Any]) -> Iterator[str]:
    """The words with their variables filled in. An option with an empty value is dropped."""
    filled: list[str] = []
    for word in words:
        alone = PLACEHOLDER.fullmatch(word)
        if alone and values[alone[1]] in (None, []):
            if filled and filled[-1].startswith("--") and "=" not in filled[-1]:
                filled.pop()
            continue
        repeated = {name for name, star in PLACEHOLDER.findall(word) if star}
        if not repeated:
            _refuse_list_inside(word, values)
            text = substitute(word, values)
            if alone and text.startswith("-") and filled[-1].startswith("--") and "=" not in filled[-1]:
                filled[-1] += f"={text}"  # otherwise it would be parsed as an option
            elif alone and text.startswith("-"):
                raise UserError(f"{alone[1]}={text}: is parsed as an option; write a path as ./{text}")
            else:
                filled.append(text)
            continue
        lists = [values[name] if isinstance(values[name], list) else [values[name]] for name in repeated]
        for chosen in itertools.product(*lists):
            filled.append(substitute(word, {**values, **dict(zip(repeated, chosen, strict=True))}))
    yield from filled


def _refuse_list_inside(word: str, values: Mapping[str, Any]) -> None:
    """UserError for a list in the middle of a word, such as {out}/{seeds}, which is no path."""
    for match in PLACEHOLDER.finditer(word):
        before, after = word[: match.start()], word[match.end() :]
        if isinstance(values[match[1]], list) and (after or (before and not before.endswith("="))):
            raise UserError(
                f"{word}: {match[1]} is a list: write {{{match[1]}*}} to repeat the word, or `for` to repeat the step"
            )


def in_recipe_words(message: str, recipe: PipelineRecipe) -> str:
    """A step's message with its options renamed to the recipe's variables, if an option and its variable share a
    name."""
    lines = " ".join(step.run for step in all_steps(recipe.steps))
    names = [name for name in recipe.variables if f"--{name} {{{name}}}" in lines]
    return re.sub(rf"--({'|'.join(names)})[= ]", r"\1=", message) if names else message


def filled_words(text: str, values: Mapping[str, Any]) -> list[str]:
    """The words of a command line with its variables filled in."""
    return list(_fill(command_words(text, "next"), values))


def substitute(text: str, values: Mapping[str, Any]) -> str:
    """The text with each `{name}` replaced by the value of the variable."""
    return PLACEHOLDER.sub(lambda match: _written(values[match[1]]), text)


def _written(value: Any) -> str:
    """A value as written on a command line."""
    if isinstance(value, bool | list):
        return json.dumps(value, ensure_ascii=False)
    return "" if value is None else str(value)
