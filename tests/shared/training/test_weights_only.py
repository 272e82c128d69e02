"""Weights are loaded without running code, and the reason for a refusal does not recommend to run it."""

import os
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.pickled_code import Code

from shared.training.weights_only import FORCE, refusal, weights_only


class Plain:
    """A class of some training script."""


@pytest.mark.parametrize("force", [None, "0"])
def test_block_overrides_its_callers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, force: str | None):
    monkeypatch.delenv(FORCE, raising=False)
    if force is not None:
        monkeypatch.setenv(FORCE, force)
    torch.save({"a": torch.ones(2), "b": Plain()}, tmp_path / "plain.pt")
    with weights_only(Plain):
        assert torch.load(tmp_path / "plain.pt", weights_only=False)["a"].tolist() == [1, 1]
    with pytest.raises(Exception, match="Weights only load failed"), weights_only():
        torch.load(tmp_path / "plain.pt", weights_only=False)
    assert os.environ.get(FORCE) == force


def test_refusal_says_what_the_file_holds(tmp_path: Path):
    warnings.simplefilter("ignore")
    contents: dict[str, Any] = {
        "it holds more than weights: posix.mkdir": {"a": Code(tmp_path / "executed")},
        f"it holds more than weights: {Plain.__module__}.Plain": {"a": Plain()},
        "it holds more than weights: a TorchScript program": torch.jit.script(torch.nn.Linear(1, 1)),
        "it is damaged, or no file of weights": b"not a file of weights",
    }
    for expected, content in contents.items():
        path = tmp_path / "weights.pt"
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            content.save(path) if "Torch" in expected else torch.save(content, path)
        with pytest.raises(Exception) as caught:
            torch.load(path, weights_only=True)
        assert refusal(caught.value) == expected
    assert refusal(ValueError("a\nb")) == "a b" and not (tmp_path / "executed").exists()
