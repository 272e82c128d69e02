"""`emit encode`: frozen encoders over a clip dataset, once.

    emit encode --encoders DIR --data DIR --out DIR
    emit encode --precomputed ROOT --data DIR --out DIR      features that came with Hume-Vidmimic2 (precomputed.py)
    accelerate launch --config_file accelerate_configs/multi_gpu.yaml stage2_fusion/data/encoding.py --encoders DIR ...

Clips are encoded SHARD at a time; OUT/.partial holds the finished ones until all are there, so that a run that was
stopped goes on with the others. Several processes, on several machines that see the same OUT, share them out.

Clips are read from a `shared.dataset.clip_dataset.ClipDataset`, with the waveform at the rate of the audio encoder.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__":  # started as a file: the repository, not this folder, is where imports begin
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import numpy as np

from shared import config as configuration
from shared.dataset.clip import MODALITIES
from shared.dataset.shards import ShardWriter
from shared.dataset.worker_pool import cores
from shared.errors import UserError
from shared.files import write_csv
from stage2_fusion.config import EncodeConfig
from stage2_fusion.data.features import FeatureInfo, FeatureSample, ModalityFeatures

if TYPE_CHECKING:
    from shared.dataset.clip_dataset import ClipDataset

RAW = {"vision": "frames", "audio": "waveform", "text": "transcript"}
SHARD = 32
"""Clips that are written, and at worst encoded again, together. Fixed, so that neither the number of processes nor an
interruption changes which clips go through an encoder together, and with it the last bits."""


def main(argv: list[str] | None = None) -> int:
    config = configuration.parse(
        EncodeConfig,
        argv,
        prog="emit encode",
        example="emit encode --encoders runs/demo/encoders --data runs/demo/clips --out runs/demo/features",
    )
    encode(config)
    return 0


def encode(config: EncodeConfig) -> None:
    """Write the feature dataset; leave it alone when it is there; go on with an unfinished one; refuse to replace one
    made from other things."""
    from shared.training.distributed import peer_failure_guard

    with peer_failure_guard(config.out):
        _encode(config)


def _encode(config: EncodeConfig) -> None:
    from shared.dataset.clip_dataset import ClipDataset
    from shared.media.quality import AUDIO_QUALITY, TEXT_QUALITY, VISION_QUALITY
    from shared.training.distributed import fast_bf16, start_accelerator
    from stage2_fusion.data import features

    # Precision is a matter of autocast here. The processes meet at the end only, after however long one of them takes.
    accelerator = start_accelerator("no", timeout_minutes=24 * 60)
    encoders = _load(config, accelerator.device)
    clips = ClipDataset.open(config.data)
    precomputed = _precomputed(config, clips, encoders)
    bf16 = config.mixed_precision == "bf16" or (config.mixed_precision == "auto" and fast_bf16())
    bf16 = bf16 and encoders is not None
    units = _action_units(config, encoders)
    info = features.FeatureInfo(
        label_names=list(clips.label_names),
        group_names=list(clips.info.group_names),
        **(precomputed.describe() if precomputed else _describe(encoders, config.encoders)),
        action_units=units.describe() if units else None,
        data=features.DataInfo(
            str(config.data.resolve()), clips.digest, clips.info.recipe.to_json(), clips.info.synthetic or None
        ),
        quality={"vision": list(VISION_QUALITY), "audio": list(AUDIO_QUALITY), "text": list(TEXT_QUALITY)},
        views=config.damaged_views,
        seed=config.seed,
        precision="bf16" if bf16 else "fp32",
    ).with_digest()
    writer = ShardWriter(config.out, "features.json", "feature dataset", len(clips), SHARD)
    with accelerator.main_process_first():
        complete = _claim(writer, config, info)
    if complete:
        accelerator.print(f"{config.out}: already holds these features; nothing to do")
        return
    missing = _missing(writer, accelerator)
    notes = writer.progress_notes(range(len(writer.shards)), missing)
    accelerator.wait_for_everyone()  # no process writes before all have listed the missing shards
    for note in notes:
        accelerator.print(note)
    local_numbers = missing[accelerator.process_index :: accelerator.num_processes]
    stretches = [writer.shards[number] for number in local_numbers]
    how = config.damaged_views, config.batch_size, config.seed, bf16
    if precomputed:
        samples = precomputed.samples(stretches, *how)
    else:
        samples = encode_all(encoders, clips, *how, stretches, _workers(config, accelerator))
    with contextlib.closing(samples):  # its loaders end with it, whatever happens
        for number, rows in zip(_progress(local_numbers, accelerator), stretches, strict=True):
            features.write_samples(writer.path(number), islice(samples, len(rows) * (1 + config.damaged_views)), info)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        if precomputed:
            write_csv(config.out / "precomputed.csv", ["id", "reason"], [list(pair) for pair in precomputed.troubles])
        shards = [writer.path(number) for number in range(len(writer.shards))]
        writer.finish(features.read_samples(shards), info.digest, info.to_json())
        made_by = info.encoders.digest
        print(f"{config.out}: {len(clips)} clips, {1 + config.damaged_views} views each, encoders {made_by}")
        if precomputed and precomputed.troubles:
            (name, reason), count = precomputed.troubles[0], len(precomputed.troubles)
            print(f"  {count} modalities left out, listed in precomputed.csv, such as {name}: {reason}")


def _load(config: EncodeConfig, device):
    """The encoders that are run: all of them, the text tower alone beside precomputed features, or None."""
    if config.encoders is None:
        return None
    from stage1_align.encoders import AlignedEncoders

    return AlignedEncoders.from_pretrained(config.encoders, ("text",) if config.precomputed else None).to(device)


def _precomputed(config: EncodeConfig, clips, words):
    if config.precomputed is None:
        return None
    from stage2_fusion.data.precomputed import PrecomputedFeatures

    return PrecomputedFeatures(config.precomputed, clips, words)


def _action_units(config: EncodeConfig, encoders):
    if config.blendshapes is None:
        return None
    from stage2_fusion.data.action_units import add_action_units

    return add_action_units(encoders, config.blendshapes)


def _describe(encoders, path: Path) -> dict:
    from stage2_fusion.data.features import EncoderInfo

    return {
        "encoders": EncoderInfo(str(path.resolve()), encoders.digest, encoders.config),
        "widths": widths(encoders),
    }


def _missing(writer: ShardWriter, accelerator) -> list[int]:
    """Numbers of the missing and damaged shards, the same in all processes. Each process verifies its share of them."""
    from accelerate.utils import gather_object

    share = range(accelerator.process_index, len(writer.shards), accelerator.num_processes)
    return sorted(gather_object(writer.missing(share)))


def _progress(numbers: list[int], accelerator) -> Iterator[int]:
    from tqdm import tqdm

    hidden = None if accelerator.is_main_process else True
    return iter(tqdm(numbers, desc="encode", unit=f"x {SHARD} clips", disable=hidden))


def _workers(config: EncodeConfig, accelerator) -> int:
    if config.workers is not None:
        return config.workers
    beside = int(os.environ.get("LOCAL_WORLD_SIZE", accelerator.num_processes))  # processes on this machine
    return max(0, min(4, cores() // beside - 1))


def encode_all(
    encoders,
    clips,
    damaged_views: int,
    batch_size: int,
    seed: int,
    bf16: bool = False,
    stretches: list[range] | None = None,
    workers: int = 0,
) -> Iterator[FeatureSample]:
    """Samples of the clips in `stretches` of rows (None: of all), in order, each clip as it is followed by its damaged
    views. No forward pass reaches over the end of a stretch."""
    stretches = [range(len(clips))] if stretches is None else stretches
    given = _Views(clips, sound_rate(encoders, clips.sample_rates), damaged_views, seed)
    for loaded in _loader(given, batches(stretches, batch_size), workers):
        if isinstance(loaded, UserError):
            raise loaded
        batch, views = loaded
        clean = encode_samples(encoders, batch, bf16)
        again = encode_views(encoders, views, clean * damaged_views, bf16)
        for i, sample in enumerate(clean):
            yield sample
            yield from again[i :: len(batch)]


def batches(stretches: list[range], size: int) -> list[range]:
    """Stretches of rows cut into pieces of at most `size`."""
    return [rows[start : start + size] for rows in stretches for start in range(0, len(rows), size)]


@dataclass
class _Views:
    """What the encoders are run on, by rows: the clips, and their damaged views one view after the other."""

    clips: "ClipDataset"
    rate: int
    damaged_views: int
    seed: int

    def __getitem__(self, rows: range) -> tuple[list[dict], list[dict]] | UserError:
        """An error to be told is returned: a loader would raise it with all of its own traceback."""
        try:
            batch = [for_encoders(self.clips, row, self.rate) for row in rows]
        except UserError as error:
            return error
        numbers = range(1, self.damaged_views + 1)
        return batch, [damaged_view(clip, view, self.rate, self.seed) for view in numbers for clip in batch]


def _loader(views: _Views, batches: list[range], workers: int):
    from shared.training.loader import SigtermSafeDataLoader

    return SigtermSafeDataLoader(
        views,
        sampler=batches,
        batch_size=None,
        num_workers=workers,
        collate_fn=_as_it_is,
        prefetch_factor=1 if workers else None,  # a batch of long clips with its views may take a GiB
    )


def _as_it_is(item):
    return item


def widths(encoders) -> dict[str, int]:
    """Channels of each modality's sequence, and of the shared space. A modality without a tower is absent from every
    clip; its width only keeps shapes whole."""
    towers = encoders.towers()
    return {name: towers[name].width if name in towers else 1 for name in MODALITIES} | {"embed": encoders.embed_dim}


def sound_rate(encoders, stored: list[int]) -> int:
    """Hz at which sound is heard; without an audio tower only its quality is judged, at the first stored rate."""
    return encoders.audio.sample_rate if encoders.audio is not None else stored[0]


def for_encoders(clips, row: int, rate: int) -> dict:
    """One clip of a ClipDataset with its waveform at `rate` Hz."""
    return {**clips[row], "waveform": clips.waveform(row, rate)}


def encode_samples(encoders, clips: list[dict], bf16: bool = False) -> list[FeatureSample]:
    """Clips as they are to samples (view 0), in order."""
    parts = {name: encode_modality(encoders, name, clips, bf16) for name in MODALITIES}
    return [clean_sample(clip, *(parts[name][i] for name in MODALITIES)) for i, clip in enumerate(clips)]


def clean_sample(
    clip: dict, vision: ModalityFeatures, audio: ModalityFeatures, text: ModalityFeatures
) -> FeatureSample:
    """View 0 of a clip with these features."""
    return FeatureSample(
        **{key: clip[key] for key in ("id", "split", "duration", "labels", "groups")},
        view=0,
        damage=dict.fromkeys(MODALITIES, ""),
        vision=vision,
        audio=audio,
        text=text,
    )


def encode_views(encoders, views: list[dict], clean: list[FeatureSample], bf16: bool = False) -> list[FeatureSample]:
    """Damaged clips to samples. Only the damaged modality goes through its encoder; the rest is that of `clean`, the
    sample of the same clip as it is."""
    samples = [
        replace(sample, view=view["view"], damage=view["damage"]) for view, sample in zip(views, clean, strict=True)
    ]
    for name in MODALITIES:
        rows = [i for i, view in enumerate(views) if view["damage"][name]]
        for i, part in zip(rows, encode_modality(encoders, name, [views[i] for i in rows], bf16), strict=True):
            setattr(samples[i], name, part)
    return samples


def damaged_view(clip: dict, view: int, rate: int, seed: int) -> dict:
    """The clip with one of its modalities damaged: which, how and how much is a function of (seed, id, view).

    Quality signals of the damaged modality are computed again from what is left. Damage to text is its loss. A clip
    without any modality stays as it is.
    """
    from shared.media import quality
    from shared.media.damage import AUDIO_DAMAGE, VISION_DAMAGE, damage_frames, damage_waveform
    from shared.training.sampling import derive_seed

    rng = np.random.default_rng(derive_seed("damage", seed, clip["id"], view))
    there = [name for name in MODALITIES if len(clip[RAW[name]])]
    clip = {**clip, "view": view, "damage": dict.fromkeys(MODALITIES, "")}
    if not there:
        return clip
    name, severity = str(rng.choice(there)), float(rng.uniform(0.4, 1.0))
    if name == "text":
        clip["damage"]["text"], clip["transcript"] = "missing", ""
        clip["text_quality"] = quality.text_quality("")
    elif name == "audio":
        kind = str(rng.choice(AUDIO_DAMAGE))
        clip["damage"]["audio"] = kind
        clip["waveform"] = damage_waveform(clip["waveform"], rate, kind, rng, severity)
        clip["audio_quality"] = quality.audio_quality(clip["waveform"], rate)
    else:
        kind = str(rng.choice(VISION_DAMAGE))
        clip["damage"]["vision"] = kind
        clip["frames"] = damage_frames(clip["frames"], kind, rng, severity)
        face = clip["vision_quality"][:, quality.VISION_QUALITY.index("face_found")] > 0.5  # (T,)
        # A detector would lose damaged faces, the more the worse the damage; without a face it finds none.
        face = face & (rng.random(len(face)) >= (1.0 if kind == "no_face" else severity**2))
        clip["vision_quality"] = quality.vision_quality(clip["frames"], face)
    return clip


def encode_modality(encoders, name: str, clips: list[dict], bf16: bool) -> list[ModalityFeatures]:
    """The parts of one modality: sequence, times, pooled, quality (see features.py); T = 0 where it is missing."""
    import torch

    if not clips:
        return []
    tower = getattr(encoders, name)
    if tower is None:
        return [absent(name, clip, encoders.embed_dim) for clip in clips]
    device = next(tower.parameters()).device.type
    with torch.no_grad(), torch.autocast(device, dtype=torch.bfloat16, enabled=bf16):
        encoded = tower.encode_prepared([clip[RAW[name]] for clip in clips])
    pooled, sequences = encoded.pooled.float().cpu().numpy(), encoded.sequence.float().cpu().numpy()
    mask = encoded.mask.cpu().numpy()  # (B, T)
    parts = []
    for i, clip in enumerate(clips):
        sequence = sequences[i][mask[i]]  # (T, C)
        times = _times(name, clip, len(sequence), encoded.rate)  # (T,)
        parts.append(
            ModalityFeatures(
                sequence=sequence.astype(np.float16),
                times=np.zeros(0, np.float32) if name == "text" else times,
                pooled=pooled[i].astype(np.float16),
                quality=quality_at(name, clip, times),
            )
        )
    return parts


def absent(name: str, clip: dict, embed_dim: int) -> ModalityFeatures:
    """What a modality without a tower leaves of a clip: nothing."""
    signals = np.asarray(clip[f"{name}_quality"]).shape[-1]
    return ModalityFeatures(
        sequence=np.zeros((0, 1), np.float16),
        times=np.zeros(0, np.float32),
        pooled=np.zeros(embed_dim, np.float16),
        quality=np.zeros((0, signals), np.float32),
    )


def _times(name: str, clip: dict, steps: int, rate: float | None) -> np.ndarray:
    """Seconds of each step, float32 (T,): centres of audio steps; the frames' own times; zeros for words."""
    if name == "text":
        return np.zeros(steps, np.float32)
    if rate is not None:
        return ((np.arange(steps) + 0.5) / rate).astype(np.float32)
    return np.asarray(clip["frame_times"], dtype=np.float32)


def quality_at(name: str, clip: dict, times: np.ndarray) -> np.ndarray:
    """Quality signals at the times of the steps: float32 (T, Q). Vision signals are those of the clip's pictures, audio
    signals have a rate of their own."""
    values = np.asarray(clip[f"{name}_quality"], dtype=np.float32)
    if name == "text":
        return np.repeat(values[None], len(times), axis=0)  # (T, Q)
    if name == "vision" and np.array_equal(times, clip["frame_times"]):
        return values
    from shared.media.quality import AUDIO_QUALITY_HZ

    at = clip["frame_times"] if name == "vision" else (np.arange(len(values)) + 0.5) / AUDIO_QUALITY_HZ
    columns = [np.interp(times, at, column) for column in values.T] if len(values) else []
    return (
        np.stack(columns, axis=1).astype(np.float32) if columns else np.zeros((len(times), values.shape[1]), np.float32)
    )


def _claim(writer: ShardWriter, config: EncodeConfig, info: FeatureInfo) -> bool:
    """Whether the features of `info` are complete. If not, claim the folder; UserError if it holds something else."""
    from stage2_fusion.data.features import read_info

    made_from = _made_from(info)
    stored = _made_from(read_info(config.out)) if writer.is_complete() else None
    if stored is not None and config.mixed_precision == "auto":
        made_from["precision"] = stored["precision"]
    return writer.claim(made_from, stored)


def _made_from(info: FeatureInfo) -> dict:
    """What features depend on, under the names a person knows it by."""
    return {
        "encoders": info.encoders.digest,
        "precomputed features": info.precomputed.digest if info.precomputed else None,
        "action units": info.action_units.digest if info.action_units else None,
        "clips": info.data.digest,
        "damaged views": info.views,
        "seed": info.seed,
        "precision": info.precision,
    }


if __name__ == "__main__":
    from shared.cli import run_main

    run_main(main)
