"""What precision `auto` means: by launcher, hardware and width of the model; a resumed run repeats what was decided."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from torch import nn

from shared.errors import UserError
from shared.files import read_json, write_json
from shared.training.distributed import start_accelerator
from shared.training.precision import Hardware, matrix_width, resolve_precision
from shared.training.run_folder import RunFolder
from shared.training.startup import settle_precision

HARDWARE = {
    "old CPU": Hardware(gpu=False, gpu_bf16=False, amx=False, avx512_bf16=False),
    "AVX512": Hardware(gpu=False, gpu_bf16=False, amx=False, avx512_bf16=True),
    "AMX": Hardware(gpu=False, gpu_bf16=False, amx=True, avx512_bf16=True),
    "GPU": Hardware(gpu=True, gpu_bf16=True, amx=False, avx512_bf16=False),
    "old GPU": Hardware(gpu=True, gpu_bf16=False, amx=True, avx512_bf16=True),
}
MODELS = {"wide": nn.Linear(256, 300), "narrow": nn.Linear(255, 4096)}


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Makes this machine one of HARDWARE, outside a launcher."""
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    yield lambda name: monkeypatch.setattr(Hardware, "here", lambda: HARDWARE[name])
    AcceleratorState._reset_state()


def test_width_is_the_median_over_weights_of_the_shorter_sides():
    table = nn.Embedding(50_000, 512)  # looked up, not multiplied
    narrow, middle, wide = nn.Linear(10, 60), nn.Conv2d(40, 20, 5), nn.Linear(200, 105)
    assert [len(m.weight.flatten()) for m in (narrow, middle, wide)] == [600, 20_000, 21_000]
    assert matrix_width(nn.Sequential(table, narrow, middle, wide)) == 105  # 21,000 of 41,600 are more than half
    assert matrix_width(nn.Sequential(narrow, middle, nn.Linear(200, 100))) == 20  # 20,000 of 40,600 are less
    assert matrix_width(nn.Conv2d(64, 64, 7, groups=64)) == 1  # depthwise
    assert matrix_width(nn.TransformerEncoderLayer(384, 6, 1536)) == 384  # its stacked projections are 1152 x 384
    assert matrix_width(nn.LSTM(300, 256)) == 300  # 1024 x 300 and 1024 x 256
    assert matrix_width(nn.LayerNorm(512)) == matrix_width(nn.Identity()) == 0


@pytest.mark.parametrize(
    ("hardware", "wide", "narrow"),
    [
        ("old CPU", "no", "no"),
        ("AVX512", "bf16", "no"),
        ("AMX", "bf16", "bf16"),
        ("GPU", "bf16", "bf16"),
        ("old GPU", "no", "no"),
    ],
)
def test_auto_is_bf16_where_hardware_is_fast_at_it_for_these_widths(hardware, wide, narrow, machine):
    machine(hardware)
    for model, expected in ((MODELS["wide"], wide), (MODELS["narrow"], narrow), (None, narrow)):
        assert resolve_precision("--precision", "auto", model=model) == expected
    for value in ("no", "bf16"):
        assert resolve_precision("--precision", value, model=MODELS["wide"]) == value


@pytest.mark.parametrize(
    ("option", "launcher", "hardware", "precision", "said"),
    [
        ("auto", "no", "AVX512", "no", ""),
        ("auto", "BF16", "old CPU", "bf16", ""),
        ("no", "no", "AMX", "no", ""),
        ("bf16", "no", "old CPU", "bf16", ""),
        ("no", "bf16", "AMX", "no", "note: the launcher says bf16, but the precision is no: --precision is no\n"),
        ("auto", "fp16", "AVX512", "bf16", "note: the launcher says fp16, but the precision is bf16: fp16 is"),
    ],
)
def test_precision_is_the_launchers_or_it_is_contradicted(
    option, launcher, hardware, precision, said, machine, monkeypatch, capsys
):
    machine(hardware)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", launcher)
    assert resolve_precision("--precision", option, ("no", "bf16"), MODELS["wide"]) == precision
    told = capsys.readouterr().err
    assert told.startswith(said) and bool(told) == bool(said)


# --- in a run folder -------------------------------------------------------------------------------------------------


def start(folder: Path, model: str) -> str:
    """Begin or resume a run as a trainer does; the precision in which a product of the prepared model is computed."""
    run = RunFolder(folder, start_accelerator("auto"))
    settle_precision(run, "auto", MODELS[model])
    prepared = run.accelerator.prepare_model(nn.Sequential(nn.Linear(2, 2)))
    computed = []
    prepared[0].register_forward_hook(lambda module, inputs, output: computed.append(output.dtype))
    prepared(torch.ones(1, 2, device=run.accelerator.device))
    used = {torch.bfloat16: "bf16", torch.float32: "no"}[computed[0]]
    with run.accelerator.autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == computed[0]
    assert run.accelerator.mixed_precision == used == read_json(folder / "made_from.json", "run", "")["precision"]
    return used


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_json(tmp_path / "made_from.json", {"data": "one"})
    return tmp_path


@pytest.mark.parametrize("first", ["AVX512", "AMX", "old CPU"])
@pytest.mark.parametrize("model", list(MODELS))
def test_resumed_run_repeats_what_was_written_down(first, model, folder, machine, capsys):
    machine(first)
    precision = start(folder, model)
    assert precision == ("bf16" if first == "AMX" or (first, model) == ("AVX512", "wide") else "no")
    for other, launched in (("old CPU", "no"), ("AMX", "bf16"), ("AVX512", precision)):
        machine(other)
        assert start(folder, model) == precision
        said = capsys.readouterr().err
        assert (f"was started with mixed precision {precision}, and continues with it" in said) == (
            launched != precision
        )
    assert read_json(folder / "made_from.json", "run", "")["data"] == "one"


def test_run_of_an_earlier_version_goes_on_as_that_version_would(folder, machine):
    machine("AVX512")
    (folder / "checkpoints" / "00000003").mkdir(parents=True)
    write_json(folder / "checkpoints" / "00000003" / "progress.json", {"step": 3})
    assert start(folder, "wide") == "no"


def test_what_cannot_be_repeated_is_refused(folder, machine):
    machine("old CPU")
    write_json(folder / "made_from.json", {"precision": "fp16"})
    with pytest.raises(
        UserError, match=r"started with mixed precision fp16, and is launched with no; launch it with fp16"
    ):
        start(folder, "wide")
    write_json(folder / "made_from.json", {"precision": ["bf16"]})
    with pytest.raises(UserError, match=r"made_from.json: precision is \['bf16'\], not one of no, bf16, fp16"):
        start(folder, "wide")


def test_precision_that_an_option_gives_is_neither_decided_nor_recorded(folder, machine):
    machine("AVX512")
    run = RunFolder(folder, start_accelerator("no"))
    settle_precision(run, "no", MODELS["wide"])
    assert run.accelerator.mixed_precision == "no"
    assert read_json(folder / "made_from.json", "run", "") == {"data": "one"}
