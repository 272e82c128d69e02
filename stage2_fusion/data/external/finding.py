"""Find the files under a path that hold features, and their format."""

import re
from collections import Counter
from pathlib import Path

from shared.dataset.media_files import files_under
from shared.errors import UserError
from shared.files import NO_FILE, is_special
from shared.registry import nearest
from shared.tables.formats import is_table
from shared.text import counted, first_few
from stage2_fusion.data.external.formats import FORMATS, make_format, recognize
from stage2_fusion.data.external.openface import is_beside
from stage2_fusion.data.external.problems import Problems
from stage2_fusion.data.external.sniff import SUFFIXES, Sniffed
from stage2_fusion.data.external.tracks import KEYS

OTHERS = {
    (".pt", ".pth", ".h5", ".hdf5", ".mat", ".csd", ".ark", ".htk"): "save its arrays as .npy, .npz or .safetensors",
    (".xlsx", ".xls", ".ods", ".feather", ".rds", ".rdata", ".sav"): "save it as CSV",
    (".zip", ".gz", ".tar", ".7z", ".rar"): "unpack it",
}
"""Files that may hold features but are not read, and what to do with them."""


def find_files(path: Path, name: str, problems: Problems) -> tuple[str, list[Path]]:
    """The most frequent format, and the files in it. Any text may be a table, so other formats come first.

    name: the format, "" = recognize it. problems: receives the other files. UserError when no file holds features."""
    modality = problems.modality
    if not path.exists():
        word, _, rest = str(path).partition(":")
        of = f"; no format is called {word!r}: {nearest(word, FORMATS.parts)}" if Path(rest or ".").exists() else ""
        way = of if rest else f"; --external {modality}=PATH names the features"
        raise UserError(f"{path}: no such file or folder{way}")
    if path.is_dir():
        every = [path / each for each in files_under(path)]
        own = bool(name) and name not in FORMATS.parts
        files = [each for each in every if own or (each.suffix.lower() in SUFFIXES and not is_beside(each))]
        if not files:
            raise UserError(f"{path}: holds no features of {modality}{_what_else(every)}")
        files = _of_modality(path, files, problems)
        for file in every if not own else ():
            if file.suffix.lower() not in SUFFIXES and (hint := _hint(file)):
                problems.report("unread", "", str(file), f"not read; {hint}")
    elif is_special(path):
        raise UserError(f"{path}: {NO_FILE}")
    else:
        files = [path]
        if not name and path.suffix.lower() not in SUFFIXES:
            if hint := _hint(path):
                raise UserError(f"{path}: not read; {hint}")
            is_table(path)  # raises what to do with other files
    if name:
        return name, files
    formats = {each: make_format(each) for each in FORMATS.parts}
    kinds = {file: recognize(Sniffed(file), formats) for file in files}
    about = {kind: formats[kind].modalities for kind in kinds.values() if kind}
    fitting = Counter(kind for kind in kinds.values() if kind and modality in about[kind])
    chosen = max(fitting, key=lambda kind: (kind != "table", fitting[kind]), default="")
    for file, kind in kinds.items():
        if not kind:
            reason = "not in a known format of features; remove it, or name its format"
        elif modality not in about[kind]:
            makes = f"{formats[kind].title} makes features of {' and '.join(about[kind])}, not of {modality}"
            reason = f"{makes}; write --external {about[kind][0]}={path}"
        elif kind != chosen:
            others = f"in the format of {formats[kind].title}, among files in that of {formats[chosen].title}"
            reason = f"{others}; keep them in folders of their own"
        else:
            continue
        problems.report("unread", "", str(file), reason)
    if not chosen:
        known = ", ".join(FORMATS.parts)
        raise UserError(f"{path}: holds no features of {modality} ({known}){problems.such_as()}")
    return chosen, [file for file, kind in kinds.items() if kind == chosen]


def _of_modality(path: Path, files: list[Path], problems: Problems) -> list[Path]:
    """The files under `path`; if any path names this modality, without the files whose paths name only another one."""
    words = {file: {*re.split(r"[/_. -]", file.relative_to(path).as_posix().casefold())} for file in files}
    named = {file: {name for name, keys in KEYS.items() if words[file] & {*keys}} for file in files}
    if not any(problems.modality in names for names in named.values()):
        return files
    kept = [file for file in files if problems.modality in named[file] or not named[file]]
    if left := len(files) - len(kept):
        reason = f"{counted(left, 'file')} left out: their paths name another modality"
        problems.report("remark", "", str(path), reason)
    return kept


def _hint(file: Path) -> str:
    return next((hint for suffixes, hint in OTHERS.items() if file.suffix.lower() in suffixes), "")


def _what_else(files: list[Path]) -> str:
    """What a folder without features holds, and what to do about it."""
    if not files:
        return "; it is empty"
    kinds = Counter(file.suffix.lower() or file.name for file in files).most_common()
    held = first_few([f"{counted(count, 'file')} {kind}" for kind, count in kinds])
    hint = next((hint for file in files if (hint := _hint(file))), f"known are {', '.join(SUFFIXES)}")
    return f", but {held}; {hint}"
