"""Which files count as media, listing the files under a folder, and the shortest unique ids for them."""

import os
from pathlib import Path, PurePosixPath

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
VIDEO_SUFFIXES = (
    *(".mp4", ".webm", ".mov", ".mkv", ".avi", ".m4v", ".mpg", ".mpeg", ".ogv", ".wmv", ".flv", ".3gp", ".ts"),
    *(".3g2", ".3gpp", ".qt", ".mts", ".m2ts", ".m2t", ".m2v", ".vob", ".mxf", ".asf", ".f4v", ".divx", ".dv", ".dav"),
    *(".insv", ".lrv", ".360", ".mod", ".tod", ".ogm", ".mpe", ".m1v", ".mjpeg", ".mjpg", ".rm", ".rmvb", ".wtv"),
)
"""Files with pictures from cameras, phones, recorders and the web."""
AUDIO_SUFFIXES = (
    *(".wav", ".mp3", ".m4a", ".flac", ".ogg", ".opus", ".aac", ".wma"),
    *(".oga", ".mka", ".weba", ".amr", ".awb", ".3ga", ".caf", ".aiff", ".aif", ".aifc", ".m4b", ".mp2", ".mpga"),
    *(".ac3", ".eac3", ".au", ".snd", ".w64", ".rf64", ".wv", ".ape", ".tta", ".spx", ".dts"),
)
MEDIA_SUFFIXES = VIDEO_SUFFIXES + AUDIO_SUFFIXES
"""Extensions, in any case, that count as media in a folder search, in the order in which they complete a path without
one. A file named explicitly may have any extension."""
SYSTEM_FILES = ("thumbs.db", "desktop.ini", "ehthumbs.db", "icon\r", "$recycle.bin", "system volume information")
"""Files and folders of operating systems, in lower case, which are skipped."""


def is_system_file(name: str) -> bool:
    """Whether a file or folder is hidden, belongs to the operating system, or is the lock of an open document."""
    return name.startswith((".", "~$", "@eaDir", "__MACOSX")) or name.lower() in SYSTEM_FILES


def is_media(path: Path) -> bool:
    return path.suffix.lower() in MEDIA_SUFFIXES


def media_files(folder: Path) -> list[Path]:
    """Media files under `folder`."""
    return [path for path in files_under(folder) if is_media(path)]


def files_under(folder: Path) -> list[Path]:
    """Sorted relative paths of all files under `folder`, and of broken links; hidden files and folders are skipped.
    Linked folders are visited after the others, and every folder is visited once, however many links lead to it."""
    paths: list[str] = []
    visited: set[str] = set()
    starts = [os.fspath(folder)]
    for start in starts:
        for parent, folders, names in os.walk(start):
            real = os.path.realpath(parent)
            folders[:] = sorted(name for name in folders if not is_system_file(name) and real not in visited)
            if real in visited:
                continue
            visited.add(real)
            starts += [path for name in folders if os.path.islink(path := os.path.join(parent, name))]
            files = [os.path.join(parent, name) for name in names if not is_system_file(name)]
            paths += [path for path in files if os.path.isfile(path) or not os.path.exists(path)]
    return sorted(Path(path).relative_to(folder) for path in paths)


def ids_from_paths(files: list[str]) -> list[str]:
    """The stems of the files, or longer parts of their paths if stems repeat."""
    paths = [PurePosixPath(file.replace("\\", "/")) for file in files]
    stems = [path.stem if path.suffix.lower() in MEDIA_SUFFIXES else path.name for path in paths]
    without_suffix = [
        path.with_name(stem).as_posix() if path.name else "" for path, stem in zip(paths, stems, strict=True)
    ]
    return first_unique_names(stems, without_suffix, [path.as_posix() if path.name else "" for path in paths])


def first_unique_names(*candidates: list[str]) -> list[str]:
    """The first list with all names different; the last list if none qualifies."""
    return next((names for names in candidates if len(set(names)) == len(names)), candidates[-1])
