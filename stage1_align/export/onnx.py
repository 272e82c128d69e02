"""Each tower as an ONNX file that runs without this package, checked against the tower.

    vision.onnx   frames uint8 (B, T, 3, S, S), mask bool (B, T)       -> pooled (B, D), sequence (B, T, C)
    audio.onnx    waveform float32 (B, W, window), samples int64 (B,)  -> pooled (B, D), sequence (B, T, C)
                  wav2vec2 and audeering: waveform (B, S), S of at least two frames (720)
                  whisper: whole windows, even for short sounds
    text.onnx     ids int64 (B, L), mask bool (B, L)                   -> pooled (B, D), sequence (B, L, C)

B, T, W, S and L are dynamic, but an open_clip text tower needs L equal to its context length. Inputs are as returned by
the tower's `collate`: frames of its size, sound at its rate in whole windows or normalized, ids of its tokenizer. A
graph cannot skip masked steps as the towers do: it computes everything and masks the result. WavLM is refused, because
its attention cannot be traced with a dynamic length.
"""

import contextlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from shared.errors import UserError
from shared.terminal.progress import track
from shared.text import one_line
from stage1_align.towers import frame_inputs
from stage1_align.towers.base import Tower
from stage1_align.towers.htsat import htsat_module
from stage1_align.towers.text_open_clip import OpenClipText
from stage1_align.towers.text_tower import TextTower
from stage1_align.towers.vision_open_clip import OpenClipVision
from stage1_align.towers.wav2vec2 import Wav2vec2
from stage1_align.towers.whisper import Whisper
from stage1_align.towers.windowed_tower import WindowedTower

TOLERANCE = 1e-4  # another runtime sums in a different order
INSTALL = "pip install onnx onnxscript onnxruntime"
STEP_SAMPLES = 1999
"""Length difference of example sounds in samples, for towers without windows; a prime, so that no
length is a whole number of frames."""


def require_onnx() -> None:
    """UserError unless the packages for writing ONNX are installed."""
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"ONNX export needs {' and '.join(missing)}: {INSTALL}")


def export_towers(towers: dict[str, Tower], folder: Path) -> dict[str, float]:
    """Write MODALITY.onnx for each tower, and run it at sizes other than the traced one. Returns {modality: largest
    difference from the tower's output}; if one exceeds TOLERANCE, removes the file and raises UserError."""
    require_onnx()
    folder.mkdir(parents=True, exist_ok=True)
    differences = {}
    for modality, tower in track(towers.items(), "export to ONNX", "towers"):
        path = folder / f"{modality}.onnx"
        size = sum(value.nbytes for value in tower.state_dict().values())
        try:
            torch.onnx.export(
                exported_program(modality, tower),
                f=str(path),
                input_names=list(examples(modality, tower)),
                output_names=["pooled", "sequence"],
                external_data=size > 2**30,  # a file is limited to 2 GiB; weights go next to it
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            reason = one_line(error, 200)
            name = type(tower).__name__
            raise UserError(f"{path}: the {modality} tower {name} cannot be exported to ONNX: {reason}") from None
        inputs = examples(modality, tower, clips=4, extra_steps=2)
        largest = differences[modality] = difference(reference(tower, inputs), _run(path, inputs))
        if not largest <= TOLERANCE:
            path.unlink()
            raise UserError(f"{path}: differs from the {modality} tower by {largest:.1e}; the file was removed")
    return differences


def exported_program(modality: str, tower: Tower) -> torch.export.ExportedProgram:
    """The tower's graph, with dynamic sizes. UserError if the tower cannot be traced."""
    inputs = examples(modality, tower)
    batch = torch.export.Dim("batch")
    min_step = None
    if isinstance(tower, Wav2vec2):  # two frames
        min_step = tower.min_samples + round(tower.sample_rate / tower.rate)
    step = torch.export.Dim("step", min=min_step, max=tower.options.context_length if modality == "text" else None)
    axes = {0: batch} if _fixed_length(tower) else {0: batch, 1: step}
    dynamic_shapes = {name: axes if value.ndim > 1 else {0: batch} for name, value in inputs.items()}
    graph = _graph(modality, tower).eval()
    try:
        with torch.no_grad(), _dynamic_window_reverse():
            return torch.export.export(graph, (), inputs, dynamic_shapes=dynamic_shapes)
    except Exception as error:  # the tracer raises a dozen types
        reason = one_line(error, 200)
        raise UserError(f"the {modality} tower {type(tower).__name__} cannot be exported to ONNX: {reason}") from None


def examples(modality: str, tower: Any, clips: int = 3, extra_steps: int = 0) -> dict[str, Tensor]:
    """Inputs of the graph. Clip i is i steps (or half windows) shorter than the first; the last clip is absent."""
    generator = torch.Generator().manual_seed(clips)
    steps = tower.options.context_length if _fixed_length(tower) else clips + 1 + extra_steps
    lengths = torch.tensor([max(0, steps - i) if i < clips - 1 else 0 for i in range(clips)])  # (B,)
    mask = torch.arange(steps)[None] < lengths[:, None]  # (B, T)
    if modality == "vision":
        size = tower.options.image_size
        return {"frames": torch.randint(256, (clips, steps, 3, size, size), generator=generator).byte(), "mask": mask}
    if modality == "audio":
        samples = lengths * (tower.window // 2 if hasattr(tower, "window") else STEP_SAMPLES)  # (B,)
        sounds = [torch.rand(int(count), generator=generator).numpy() - 0.5 for count in samples]
        inputs = tower.collate(sounds)
        if isinstance(tower, Whisper):  # a graph reads whole windows
            missing = tower.window - inputs["waveform"].shape[2]
            inputs["waveform"] = nn.functional.pad(inputs["waveform"], (0, missing))  # (B, W, window)
        return inputs
    ids = torch.randint(5, len(tower.tokenizer) - 1, (clips, steps), generator=generator)  # (B, L)
    return {"ids": ids.masked_fill(~mask, tower.tokenizer.pad_id), "mask": mask}


@torch.no_grad()
def reference(tower: Tower, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The tower's output for inputs of its graph."""
    encoded = tower(**inputs)
    return encoded.pooled, encoded.sequence


def difference(a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> float:
    """Largest absolute difference; infinite if shapes differ."""
    if any(x.shape != y.shape for x, y in zip(a, b, strict=True)):
        return float("inf")
    return max((x - y).abs().max().item() for x, y in zip(a, b, strict=True))


def _run(path: Path, inputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
    """Outputs of an ONNX file, from onnxruntime or, more slowly, from onnx's reference evaluator."""
    values = {name: value.numpy() for name, value in inputs.items()}
    if importlib.util.find_spec("onnxruntime"):
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return tuple(torch.from_numpy(value) for value in session.run(["pooled", "sequence"], values))
    from onnx.reference import ReferenceEvaluator

    return tuple(torch.from_numpy(value) for value in ReferenceEvaluator(str(path)).run(["pooled", "sequence"], values))


def _fixed_length(tower: Tower) -> bool:
    return isinstance(tower, OpenClipText)


def _graph(modality: str, tower: Tower) -> nn.Module:
    graphs: dict[type[Tower], type[_Graph]] = {
        OpenClipVision: _VisionGraph,
        WindowedTower: _WindowedGraph,
        Wav2vec2: _SpeechGraph,
        Whisper: _WhisperGraph,
        TextTower: _TextGraph,
    }
    for tower_class, graph in graphs.items():
        if isinstance(tower, tower_class):
            return graph(tower)
    raise UserError(f"the {modality} tower {type(tower).__name__} cannot be exported to ONNX; leave out --onnx")


class _Graph(nn.Module):
    """The forward pass of a tower, with the inputs and outputs of the ONNX file."""

    def __init__(self, tower: Any):
        super().__init__()
        self.tower = tower


class _TextGraph(_Graph):
    def forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        encoded = self.tower(ids, mask)
        return encoded.pooled, encoded.sequence


class _SpeechGraph(_Graph):
    def forward(self, waveform: Tensor, samples: Tensor) -> tuple[Tensor, Tensor]:
        encoded = self.tower(waveform, samples)
        return encoded.pooled, encoded.sequence


class _VisionGraph(_Graph):
    def forward(self, frames: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        tower = self.tower
        x = frames.float() / 255  # (B, T, 3, S, S)
        if tower.options.motion:
            gray = x.mean(2, keepdim=True)  # (B, T, 1, S, S)
            real = mask[..., None, None, None]  # (B, T, 1, 1, 1)
            count = real.sum(1, keepdim=True).clamp(min=1)  # (B, 1, 1, 1, 1)
            difference = gray - (gray * real).sum(1, keepdim=True) / count  # (B, T, 1, S, S)
            deviation = ((difference.square() * real).sum(1, keepdim=True) / count).sqrt()  # (B, 1, 1, S, S)
            x = gray - _clip_mean(gray, mask)  # (B, T, 1, S, S)
            unit = _clip_mean(x.square(), mask).sqrt() + frame_inputs.DARK  # (B, 1, 1, 1, 1)
            moving = [frame_inputs.MOVING * part.expand_as(x) for part in (difference, deviation)]  # (B, T, 1, S, S)
            x = torch.cat([x, *moving], 2) / unit  # (B, T, 3, S, S)
        elif tower.options.standardize:
            x = x - _clip_mean(x, mask)  # (B, T, 3, S, S)
            x = x / (_clip_mean(x.square(), mask).sqrt() + frame_inputs.DARK)  # (B, T, 3, S, S)
        else:
            x = (x - tower.mean) / tower.std  # (B, T, 3, S, S)
        features = tower.trunk(x.flatten(0, 1))  # (B * T, C)
        encoded = tower._finish(features.unflatten(0, mask.shape), mask, None)
        return encoded.pooled, encoded.sequence


def _clip_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean over the real frames of (B, T, 3, S, S): (B, 1, 1, 1, 1)."""
    frame_means = x.flatten(2).mean(2) * mask  # (B, T)
    return (frame_means.sum(1) / mask.sum(1).clamp(min=1)).view(-1, 1, 1, 1, 1)


class _SpectrogramGraph(_Graph):
    basis: Tensor

    def __init__(self, tower: Any):
        super().__init__(tower)
        # The Fourier transform as a convolution: not every ONNX runtime supports complex numbers.
        basis = torch.fft.rfft(torch.eye(tower.n_fft, dtype=torch.float64)).T * tower.hann.cpu().double()  # (bins, n)
        self.register_buffer("basis", torch.cat([basis.real, basis.imag])[:, None].float())  # (2 * bins, 1, n_fft)

    def power(self, waveform: Tensor) -> Tensor:
        """Power spectra (B * W, F, bins) of whole windows (B, W, window)."""
        half = self.tower.n_fft // 2
        x = nn.functional.pad(waveform.flatten(0, 1)[:, None], (half, half), mode="reflect")  # (B * W, 1, S + n_fft)
        x = nn.functional.conv1d(x, self.basis, stride=self.tower.hop)  # (B * W, 2 * bins, F)
        return rearrange(x.square(), "n (part bins) f -> n part f bins", part=2).sum(1)


class _WindowedGraph(_SpectrogramGraph):
    def forward(self, waveform: Tensor, samples: Tensor) -> tuple[Tensor, Tensor]:
        tower, (clips, windows) = self.tower, waveform.shape[:2]
        power = self.power(waveform)  # (B * W, F, bins)
        clip = torch.arange(clips, device=samples.device)[:, None].expand(-1, windows)  # (B, W)
        window = torch.arange(windows, device=samples.device).expand(clips, -1)  # (B, W)
        at = torch.stack([clip.flatten(), window.flatten()])  # (2, B * W)
        mel = tower._mel(power, at, samples)  # (B * W, 1, F, M)
        sequence = tower._steps(mel, at, samples).unflatten(0, (clips, windows)).flatten(1, 2)  # (B, T, C)
        encoded = tower._finish(sequence, tower._step_mask(sequence, samples), None)
        return encoded.pooled, encoded.sequence


class _WhisperGraph(_SpectrogramGraph):
    def forward(self, waveform: Tensor, samples: Tensor) -> tuple[Tensor, Tensor]:
        tower, (clips, windows) = self.tower, waveform.shape[:2]
        mel = tower._log_mel(self.power(waveform)[:, :-1], 2 * tower.positions)  # (B * W, M, F)
        starts = torch.arange(windows, device=samples.device) * tower.window  # (W,)
        steps = tower._count_steps((samples[:, None] - starts).clamp(0, tower.window)).flatten()  # (B * W,)
        states = tower._encode(mel, tower._count_positions(steps), tower.positions)  # (B * W, P, C)
        sequence = states.unflatten(0, (clips, windows)).flatten(1, 2)  # (B, T, C)
        encoded = tower._finish(sequence, tower._step_mask(sequence, samples), None)
        return encoded.pooled, encoded.sequence


@contextlib.contextmanager
def _dynamic_window_reverse() -> Iterator[None]:
    """Replace laion_clap's window_reverse, which computes the batch size by a float division, a constant in a graph."""
    htsat = htsat_module()
    original = htsat.window_reverse
    htsat.window_reverse = lambda windows, side, height, width: rearrange(
        windows, "(b h w) i j c -> b (h i) (w j) c", h=height // side, w=width // side
    )
    try:
        yield
    finally:
        htsat.window_reverse = original
