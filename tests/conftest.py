"""Shared by all tests: no network, and one small synthetic corpus of real media files."""

import os
from pathlib import Path

import pytest

# Set before anything imports transformers or huggingface_hub: tests never use a network.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> Path:
    """Forty clips with subjects, splits, damage and known truth."""
    from shared.commands.synth import main

    folder = tmp_path_factory.mktemp("corpus") / "corpus"
    assert main(["--out", str(folder), "--clips", "40", "--seed", "0", "--workers", "1"]) == 0
    return folder


@pytest.fixture(scope="session")
def clips(corpus, tmp_path_factory) -> Path:
    """The clip dataset of that corpus."""
    from shared.commands.prepare import main

    folder = tmp_path_factory.mktemp("clips") / "clips"
    assert main([str(corpus), "--out", str(folder), "--workers", "1"]) == 0
    return folder
