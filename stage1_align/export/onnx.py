"""Each tower as an ONNX file that runs without this package, checked against the tower it came from.

    vision.onnx   frames uint8 (B, T, 3, S, S), mask bool (B, T)       -> pooled (B, D), sequence (B, T, C)
    audio.onnx    waveform float32 (B, W, window), samples int64 (B,)  -> pooled (B, D), sequence (B, T, C)
                  wav2vec2 and audeering: waveform (B, S), S of two frames at least (720)
    text.onnx     ids int64 (B, L), mask bool (B, L)                   -> pooled (B, D), sequence (B, L, C)

B, T, W, S and L are free; an open_clip text tower alone wants L to be its context length. What comes in is what
`collate` of the towers makes: frames of the tower's size, sound at its rate, in whole windows or normalised as the
tower wants it, ids of its tokenizer. A graph cannot skip what is masked, as the towers do, so it runs everything and
masks it after. WavLM is refused: its attention cannot be traced with a free length.
"""

import contextlib
import importlib.util
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor, nn

from shared.errors import UserError
from shared.text import one_line
from stage1_align.towers.base import Tower

TOLERANCE = 1e-4  # other kernels add up in another order
INSTALL = "pip install onnx onnxscript onnxruntime"


def require() -> None:
    """UserError unless the packages that write ONNX are installed."""
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"ONNX export needs {' and '.join(missing)}: {INSTALL}")


def write(towers: dict[str, Tower], folder: Path) -> dict[str, float]:
    """Write MODALITY.onnx for each tower and run it at sizes it was not traced at. Returns the largest difference from
    the tower's own output; UserError when one is above TOLERANCE, after taking the file away."""
    require()
    folder.mkdir(parents=True, exist_ok=True)
    worst = {}
    for modality, tower in towers.items():
        path = folder / f"{modality}.onnx"
        size = sum(value.nbytes for value in tower.state_dict().values())
        try:
            torch.onnx.export(
                program(modality, tower),
                f=str(path),
                input_names=list(examples(modality, tower)),
                output_names=["pooled", "sequence"],
                external_data=size > 2**30,  # one file may not pass 2 GiB; the weights then lie beside it
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            reason = one_line(error, 200)
            raise UserError(f"{path}: the {modality} tower {type(tower).__name__} is not for ONNX: {reason}") from None
        inputs = examples(modality, tower, clips=4, longer=2)
        worst[modality] = difference(reference(tower, inputs), _run(path, inputs))
        if not worst[modality] <= TOLERANCE:
            path.unlink()
            raise UserError(f"{path}: differs from the {modality} tower by {worst[modality]:.1e}; the file was removed")
    return worst


def program(modality: str, tower: Tower) -> torch.export.ExportedProgram:
    """The tower's graph, with free sizes."""
    inputs = examples(modality, tower)
    batch = torch.export.Dim("batch")
    least = tower.least + round(tower.sample_rate / tower.rate) if hasattr(tower, "least") else None  # two frames
    step = torch.export.Dim("step", min=least, max=tower.options.context_length if modality == "text" else None)
    axes = {0: batch} if _fixed_length(tower) else {0: batch, 1: step}
    free = {name: axes if value.ndim > 1 else {0: batch} for name, value in inputs.items()}
    graph = _graph(modality, tower).eval()
    try:
        with torch.no_grad(), _free_windows():
            return torch.export.export(graph, (), inputs, dynamic_shapes=free)
    except Exception as error:  # the tracer has a dozen kinds
        reason = one_line(error, 200)
        raise UserError(f"the {modality} tower {type(tower).__name__} cannot be written as ONNX: {reason}") from None


def examples(modality: str, tower: Tower, clips: int = 3, longer: int = 0) -> dict[str, Tensor]:
    """Inputs of the graph; clip i is i steps (or halves of a window) shorter than the first, the last one absent."""
    generator = torch.Generator().manual_seed(clips)
    steps = tower.options.context_length if _fixed_length(tower) else clips + 1 + longer
    lengths = torch.tensor([max(0, steps - i) if i < clips - 1 else 0 for i in range(clips)])  # (B,)
    mask = torch.arange(steps)[None] < lengths[:, None]  # (B, T)
    if modality == "vision":
        size = tower.options.image_size
        return {"frames": torch.randint(256, (clips, steps, 3, size, size), generator=generator).byte(), "mask": mask}
    if modality == "audio":
        samples = lengths * (tower.window // 2 if hasattr(tower, "window") else 1999)  # (B,)
        sounds = [torch.rand(int(count), generator=generator).numpy() - 0.5 for count in samples]
        return tower.collate(sounds)
    ids = torch.randint(5, len(tower.tokenizer) - 1, (clips, steps), generator=generator)  # (B, L)
    return {"ids": ids.masked_fill(~mask, tower.tokenizer.pad_id), "mask": mask}


@torch.no_grad()
def reference(tower: Tower, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The tower's own output for inputs of its graph."""
    encoded = tower(**inputs)
    return encoded.pooled, encoded.sequence


def difference(a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> float:
    """Largest absolute difference; infinite where shapes differ."""
    if any(x.shape != y.shape for x, y in zip(a, b, strict=True)):
        return float("inf")
    return max((x - y).abs().max().item() for x, y in zip(a, b, strict=True))


def _run(path: Path, inputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
    """With onnxruntime, or, slowly, with onnx's own evaluator."""
    values = {name: value.numpy() for name, value in inputs.items()}
    if importlib.util.find_spec("onnxruntime"):
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return tuple(torch.from_numpy(value) for value in session.run(["pooled", "sequence"], values))
    from onnx.reference import ReferenceEvaluator

    return tuple(torch.from_numpy(value) for value in ReferenceEvaluator(str(path)).run(["pooled", "sequence"], values))


def _fixed_length(tower: Tower) -> bool:
    from stage1_align.towers.text_open_clip import OpenClipText

    return isinstance(tower, OpenClipText)


def _graph(modality: str, tower: Tower) -> nn.Module:
    from stage1_align.towers.audio_windows import WindowedTower
    from stage1_align.towers.text_tower import TextTower
    from stage1_align.towers.vision_open_clip import OpenClipVision
    from stage1_align.towers.wav2vec2 import Wav2vec2

    graphs = {OpenClipVision: _Vision, WindowedTower: _Windowed, Wav2vec2: _Speech, TextTower: _Text}
    for kind, graph in graphs.items():
        if isinstance(tower, kind):
            return graph(tower)
    raise UserError(f"the {modality} tower {type(tower).__name__} has no ONNX form yet; leave out --onnx")


class _Graph(nn.Module):
    """Of a tower; its forward names the inputs, which the tracer asks for."""

    def __init__(self, tower: Tower):
        super().__init__()
        self.tower = tower


class _Text(_Graph):
    def forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        encoded = self.tower(ids, mask)
        return encoded.pooled, encoded.sequence


class _Speech(_Graph):
    def forward(self, waveform: Tensor, samples: Tensor) -> tuple[Tensor, Tensor]:
        encoded = self.tower(waveform, samples)
        return encoded.pooled, encoded.sequence


class _Vision(_Graph):
    def forward(self, frames: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        tower = self.tower
        x = frames.float() / 255  # (B, T, 3, S, S)
        if tower.options.standardize:
            x = x - _clip_mean(x, mask)  # (B, T, 3, S, S)
            x = x / (_clip_mean(x.square(), mask).sqrt() + 0.05)  # (B, T, 3, S, S)
        else:
            x = (x - tower.mean) / tower.std  # (B, T, 3, S, S)
        features = tower.trunk(x.flatten(0, 1))  # (B * T, C)
        encoded = tower._finish(features.unflatten(0, mask.shape), mask, None)
        return encoded.pooled, encoded.sequence


def _clip_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean over the real frames of (B, T, 3, S, S): (B, 1, 1, 1, 1)."""
    frame = x.flatten(2).mean(2) * mask  # (B, T)
    return (frame.sum(1) / mask.sum(1).clamp(min=1)).view(-1, 1, 1, 1, 1)


class _Windowed(_Graph):
    def __init__(self, tower: Tower):
        super().__init__(tower)
        # The Fourier transform as a convolution: its complex numbers are not for every ONNX runtime.
        basis = torch.fft.rfft(torch.eye(tower.n_fft, dtype=torch.float64)).T * tower.hann.cpu().double()  # (bins, n)
        self.register_buffer("basis", torch.cat([basis.real, basis.imag])[:, None].float())  # (2 * bins, 1, n_fft)

    def forward(self, waveform: Tensor, samples: Tensor) -> tuple[Tensor, Tensor]:
        tower, (clips, windows) = self.tower, waveform.shape[:2]
        half = tower.n_fft // 2
        x = nn.functional.pad(waveform.flatten(0, 1)[:, None], (half, half), mode="reflect")  # (B * W, 1, S + n_fft)
        x = nn.functional.conv1d(x, self.basis, stride=tower.hop)  # (B * W, 2 * bins, F)
        power = rearrange(x.square(), "n (part bins) f -> n part f bins", part=2).sum(1)  # (B * W, F, bins)
        clip = torch.arange(clips, device=samples.device)[:, None].expand(-1, windows)  # (B, W)
        window = torch.arange(windows, device=samples.device).expand(clips, -1)  # (B, W)
        mel = tower._mel(power, torch.stack([clip.flatten(), window.flatten()]), samples)  # (B * W, 1, F, M)
        sequence = tower._frames(mel).unflatten(0, (clips, windows)).flatten(1, 2)  # (B, T, C)
        encoded = tower._finish(sequence, tower._begun(sequence, samples), None)
        return encoded.pooled, encoded.sequence


@contextlib.contextmanager
def _free_windows():
    """laion_clap's window_reverse finds the batch size by a division of floats, which fixes it in a graph."""
    from stage1_align.towers.htsat import _htsat_module

    htsat = _htsat_module()
    original = htsat.window_reverse
    htsat.window_reverse = lambda windows, side, height, width: rearrange(
        windows, "(b h w) i j c -> b (h i) (w j) c", h=height // side, w=width // side
    )
    try:
        yield
    finally:
        htsat.window_reverse = original
