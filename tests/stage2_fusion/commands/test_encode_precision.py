"""`emit encode` decides its precision by processor and towers, and a finished dataset keeps its own."""

from pathlib import Path

import pytest
from helpers import stage1_tiny

from shared.training import precision
from shared.training.precision import Hardware
from stage2_fusion.commands.encode import EncodeConfig, encode
from stage2_fusion.data.feature_info import read_info


def test_precision_follows_the_width_of_the_encoders_and_stays(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    stage1_tiny.encoders().save_pretrained(tmp_path / "encoders", {"data": "nothing"})

    def features(name: str, avx512_bf16: bool) -> str:
        monkeypatch.setattr(Hardware, "here", lambda: Hardware(False, False, amx=False, avx512_bf16=avx512_bf16))
        out = tmp_path / name
        encode(EncodeConfig(encoders=tmp_path / "encoders", data=clips, out=out, damaged_views=0, workers=0))
        return read_info(out).precision

    assert features("narrow", avx512_bf16=True) == "fp32"
    monkeypatch.setattr(precision, "WIDE", 8)
    assert features("wide", avx512_bf16=True) == "bf16"
    assert features("narrow", avx512_bf16=True) == "fp32"  # it is finished
    assert features("wide", avx512_bf16=False) == "bf16"
    assert capsys.readouterr().out.count("already holds these features; nothing to do") == 2
