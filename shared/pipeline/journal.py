"""What a recipe wrote in a folder, and from what: OUT/recipe.json. It decides which steps run again."""

import dataclasses
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shared.errors import UserError
from shared.files import read_object, write_json
from shared.pipeline.fingerprints import fingerprint
from shared.pipeline.plan import PlannedStep
from shared.text import first_few

FILE = "recipe.json"


@dataclass
class Entry:
    """One step that has started; it is done once `outputs` lists what it wrote."""

    command: str
    made_from: dict[str, Any]
    outputs: dict[str, str] = field(default_factory=dict)
    """{output, relative to the folder: its fingerprint}."""
    done: bool = False
    seconds: float = 0.0
    run: str = ""
    """The `emit run` that started it; "" from versions that did not record it."""


class Journal:
    """The steps that recipes have started and finished in a folder."""

    def __init__(self, out: Path):
        self.out = out
        self.entries: dict[str, Entry] = {}
        if (out / FILE).exists():
            content = read_object(out / FILE, "list of what recipes wrote", "delete it, or give another out=")
            try:
                self.entries = {key: Entry(**value) for key, value in content["steps"].items()}
            except (KeyError, TypeError, AttributeError):
                raise UserError(f"{out / FILE}: damaged; delete it, or give another out=") from None

    def finished(self, step: PlannedStep, made_from: dict[str, Any]) -> Entry | None:
        """The entry of a step if its outputs exist and come from the same inputs. UserError for an output that changed
        since."""
        entry = self.entries.get(self._key(step))
        if entry is None or not entry.done or entry.made_from != made_from:
            return None
        if any(not output.path.exists() for output in step.outputs):
            return None
        self._refuse_changed(step, entry)
        return entry

    def why_again(self, step: PlannedStep, made_from: dict[str, Any]) -> str:
        """Why a step that was done before runs again, in words; "" if it was not done."""
        entry = self.entries.get(self._key(step))
        if entry is None or not entry.done:
            return ""
        names = sorted(entry.made_from.keys() | made_from.keys())
        changed = [name for name in names if entry.made_from.get(name) != made_from.get(name)]
        return f"{first_few(changed)} changed" if changed else "its output is gone"

    def begin(self, step: PlannedStep, made_from: dict[str, Any], run: str = "") -> None:
        """Record that a step of `run` starts. Its outputs from other inputs are deleted. UserError for an existing
        output that no recipe wrote here, or that changed since. An interrupted step keeps its outputs."""
        key = self._key(step)
        entry = self.entries.get(key)
        existing = [output.path for output in step.outputs if _holds_something(output.path)]
        if entry is None:
            for path in existing:
                raise UserError(
                    f"{path}: exists, but no recipe wrote it (step {step.line.name!r}); delete it, or give another out"
                )
        else:
            if entry.done:
                self._refuse_changed(step, entry)
            if entry.done or entry.made_from != made_from:
                for output in step.outputs:
                    for path in (output.path, *output.beside):
                        _delete(path)
        self.entries[key] = Entry(str(step.line), made_from, run=run)
        self._write()

    def finish(self, step: PlannedStep, seconds: float) -> None:
        """Record that a step is done."""
        entry = self.entries[self._key(step)]
        entry.outputs = {self._relative(output.path): fingerprint(output.path) for output in step.outputs}
        entry.done, entry.seconds = True, round(seconds, 1)
        self._write()

    def _refuse_changed(self, step: PlannedStep, entry: Entry) -> None:
        for output in step.outputs:
            path = output.path
            if _holds_something(path) and entry.outputs.get(self._relative(path)) != fingerprint(path):
                raise UserError(
                    f"{path}: changed since this recipe wrote it (step {step.line.name!r}); delete it to rewrite it, "
                    "or give another out="
                )

    def _key(self, step: PlannedStep) -> str:
        """A step is identified by what it writes, in any recipe."""
        outputs = [self._relative(output.path) for output in step.outputs]
        return " ".join(outputs) if outputs else f"{step.line.words[1]} of {step.line.name}"

    def _relative(self, path: Path) -> str:
        return os.path.relpath(path, self.out)

    def _write(self) -> None:
        write_json(self.out / FILE, {"steps": {key: dataclasses.asdict(entry) for key, entry in self.entries.items()}})


def _holds_something(path: Path) -> bool:
    """Whether an output exists: a file, or a folder that is not empty."""
    return any(path.iterdir()) if path.is_dir() else os.path.lexists(path)


def _delete(path: Path) -> None:
    """Delete an output; for a symbolic link, its target."""
    target = Path(os.path.realpath(path))
    if target.is_dir():
        shutil.rmtree(target)
    else:
        target.unlink(missing_ok=True)
