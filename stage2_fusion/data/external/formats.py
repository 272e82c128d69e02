"""The file formats of other tools' features, and how a file's format is recognized."""

import os
from pathlib import Path
from typing import Any

from shared.registry import IMPORT_PATH, Registry
from stage2_fusion.data.external.sniff import Sniffed
from stage2_fusion.data.external.tracks import ExternalFormat

PACKAGE = "stage2_fusion.data.external"
FORMATS = Registry(
    "format of external features",
    {
        "openface": f"{PACKAGE}.openface:OpenFace",
        "opensmile": f"{PACKAGE}.opensmile:OpenSmile",
        "pyfeat": f"{PACKAGE}.pyfeat:PyFeat",
        "libreface": f"{PACKAGE}.libreface:LibreFace",
        "arrays": f"{PACKAGE}.arrays:Arrays",
        "mmsa": f"{PACKAGE}.pickles:Pickles",
        "sequences": f"{PACKAGE}.sequences:Sequences",
        "table": f"{PACKAGE}.table:Table",
    },
)
"""Tried in this order, since any CSV may be a table."""


def make_format(name: str) -> ExternalFormat:
    """The format of this name, or at the import path "package.module:Class"."""
    return FORMATS.get(name)()


def split_spec(value: str) -> tuple[str, Path]:
    """The format and the path of "PATH" or "FORMAT:PATH"; the format "" means that the files tell it. Expands ~, which
    not every shell does after =."""
    name, path = FORMATS.split(value)
    if not (path and (name in FORMATS.parts or IMPORT_PATH.fullmatch(value))):
        name, path = "", value
    return name, Path(os.path.expanduser(path))


def recognize(file: Sniffed, formats: dict[str, Any]) -> str:
    """The first of `formats` ({name: format}) that a file is in; "" for none."""
    return next((name for name, format in formats.items() if format.recognizes(file)), "")
