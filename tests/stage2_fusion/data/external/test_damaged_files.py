"""Damaged bytes in the files of other tools: read or refused in one line; only finite values get through."""

import pickle
import random

import numpy as np
import pytest
from helpers import tool_files
from helpers.tool_files import GOOD, read
from hostile.mutate import mutated_bytes

from shared.errors import UserError

RNG = np.random.default_rng(0)
PARTS = {"train": {"a": dict.fromkeys(("vision", "audio", "text"), GOOD)}}
WRITERS = {
    "openface": lambda path: tool_files.openface(path.with_suffix(".csv"), 3, RNG),
    "opensmile": lambda path: tool_files.smilextract(path.with_suffix(".csv"), {"unknown": GOOD}, tool_files.LLD[:3]),
    "package": lambda path: tool_files.opensmile_package(
        path.with_suffix(".csv"), {"a.wav": GOOD}, tool_files.LLD[:3], 0.01, 0.02
    ),
    "pyfeat": lambda path: tool_files.pyfeat(path.with_suffix(".csv"), "a.mp4", 3, 2.0, RNG),
    "mmsa": lambda path: tool_files.mmsa(path.with_suffix(".pkl"), PARTS),
    "pickle": lambda path: path.with_suffix(".pkl").write_bytes(pickle.dumps(GOOD)),
    "npz": lambda path: np.savez(path.with_suffix(".npz"), features=GOOD, times=np.arange(4.0)),
    "table": lambda path: path.with_suffix(".csv").write_text("id,time,x,confidence\na,0.1,2,0.5\na,0.2,3,0.4\n"),
}


@pytest.mark.parametrize("name", WRITERS)
def test_damaged_bytes_never_become_features_that_are_not_finite(name, tmp_path):
    (tmp_path / "made").mkdir()
    WRITERS[name](tmp_path / "made" / "a")
    source = next(path for path in (tmp_path / "made").iterdir() if "details" not in path.name)
    modality = "vision" if name in ("openface", "pyfeat") else "audio"
    assert read(tmp_path / "made", modality).present[modality].any()
    rng, data, folder = random.Random(0), source.read_bytes(), tmp_path / "damaged"
    folder.mkdir()
    for _ in range(12):
        (folder / source.name).write_bytes(mutated_bytes(data, rng))
        try:
            features = read(folder, modality)
        except UserError as error:
            assert "\n" not in str(error)
            continue
        for row in range(4):
            steps = features.read(row)[modality]
            assert all(np.isfinite(part).all() for part in (steps.values, steps.times, steps.signals))
        assert not any("\n" in each.reason for each in features.problems)
