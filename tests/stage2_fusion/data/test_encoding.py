"""Encoding clips, with stubs of encoders and of a clip dataset."""

import dataclasses
import math
from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import torch

from shared.dataset.clip import MODALITIES
from shared.dataset.clip_dataset import ClipSample
from shared.dataset.recipe import Recipe
from shared.media.quality import AUDIO_QUALITY, TEXT_QUALITY, VISION_QUALITY
from stage2_fusion.data.encoding import encode_dataset, waveform_rate
from stage2_fusion.data.features import FeatureSample


@dataclasses.dataclass
class Encoded:
    pooled: torch.Tensor
    sequence: torch.Tensor
    mask: torch.Tensor
    rate: float | None


class StubTower(torch.nn.Module):
    """Its steps are simple functions of the input, so that confused clips are noticed."""

    sample_rate, width = 100, 3

    def __init__(self, modality: str):
        super().__init__()
        self.modality = modality
        self.batch_sizes: list[int] = []
        self.parameter = torch.nn.Parameter(torch.zeros(1))

    def steps(self, item):
        if self.modality == "vision":
            return item.reshape(len(item), -1).mean(1) if len(item) else []
        if self.modality == "audio":
            return [np.abs(item[start : start + 25]).mean() for start in range(0, len(item), 25)]
        return [float(len(word)) for word in item.split()]

    def encode_prepared(self, items):
        self.batch_sizes.append(len(items))
        rows = [torch.tensor(np.asarray(self.steps(item), dtype=np.float32)) for item in items]
        length = max(1, *(len(row) for row in rows))
        sequence = torch.zeros(len(rows), length, 3)
        mask = torch.zeros(len(rows), length, dtype=torch.bool)
        for i, row in enumerate(rows):
            sequence[i, : len(row)] = row[:, None]
            mask[i, : len(row)] = True
        pooled = sequence.sum(1)[:, :2] / mask.sum(1, keepdim=True).clamp(min=1)
        return Encoded(pooled, sequence, mask, 4.0 if self.modality == "audio" else None)


class StubEncoders:
    def __init__(self):
        self.vision, self.audio, self.text = StubTower("vision"), StubTower("audio"), StubTower("text")
        self.embed_dim, self.digest, self.config = 2, "e" * 16, {}

    def towers(self):
        return {name: getattr(self, name) for name in MODALITIES if getattr(self, name) is not None}


class StubClips:
    """Seven clips. Clip i is a gray of its own; some lack a modality, the last one lacks all."""

    sample_rates = (100,)
    info = SimpleNamespace(recipe=Recipe())

    def __init__(self):
        rng = np.random.default_rng(0)
        self.items = [self.make(i, rng) for i in range(7)]

    @staticmethod
    def make(i: int, rng: np.random.Generator) -> ClipSample:
        seconds = 1 + 0.5 * i
        frames = np.zeros((0 if i in (2, 6) else 3 + i, 24, 24, 3), np.uint8) + np.uint8(20 * i + 30)
        waveform = rng.normal(0, 0.1, 0 if i in (3, 6) else int(100 * seconds)).astype(np.float32)
        return ClipSample(
            id=f"c{i}",
            split="train",
            transcript="" if i in (4, 6) else "so " * (i + 1),
            duration=seconds,
            labels=np.full(2, i / 10, np.float32),
            groups={"subject": "s"},
            frames=frames,
            frame_times=np.linspace(0, seconds, len(frames), endpoint=False, dtype=np.float32),
            waveform=waveform,
            vision_quality=np.full((len(frames), len(VISION_QUALITY)), 0.9, np.float32),
            audio_quality=np.full((math.ceil(len(waveform) / 10), len(AUDIO_QUALITY)), 0.9, np.float32),
            text_quality=np.full(len(TEXT_QUALITY), 0.9, np.float32),
        )

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        return self.items[i]

    def waveform(self, i, rate):
        assert rate == 100
        return self.items[i].waveform


def encode_all(batch_size, views=1, seed=0, encoders=None, shards=None, workers=0) -> list[FeatureSample]:
    options = {"damaged_views": views, "batch_size": batch_size, "seed": seed, "workers": workers}
    return list(encode_dataset(encoders or StubEncoders(), StubClips(), shards, **options))


def assert_same_features(a: FeatureSample, b: FeatureSample, modalities: Sequence[str] = MODALITIES) -> None:
    for name in modalities:
        for key in ("sequence", "times", "pooled", "quality"):
            np.testing.assert_array_equal(getattr(a.modality(name), key), getattr(b.modality(name), key))


def assert_same_samples(a: list[FeatureSample], b: list[FeatureSample]) -> None:
    for one, other in zip(a, b, strict=True):
        assert (one.id, one.view, one.damage) == (other.id, other.view, other.damage)
        assert_same_features(one, other)


def test_samples_hold_the_output_of_the_encoders():
    samples, clips = encode_all(3, views=0), StubClips()
    assert [sample.id for sample in samples] == [f"c{i}" for i in range(7)]
    for i, sample in enumerate(samples):
        clip = clips[i]
        assert (sample.vision.sequence == 20 * i + 30).all()
        assert sample.vision.sequence.shape == (len(clip.frames), 3)
        np.testing.assert_array_equal(sample.vision.times, clip.frame_times)
        words = len(clip.transcript.split())
        assert sample.text.steps == words and sample.text.quality.shape == (words, len(TEXT_QUALITY))
        steps = sample.audio.steps
        np.testing.assert_allclose(sample.audio.times, (np.arange(steps) + 0.5) / 4)
        assert sample.audio.quality.shape == (steps, len(AUDIO_QUALITY))
        np.testing.assert_allclose(sample.audio.quality, 0.9, rtol=1e-6)
    for name in MODALITIES:
        assert samples[6].modality(name).steps == 0 and not samples[6].modality(name).pooled.any()


def test_features_do_not_depend_on_the_batch_size():
    assert_same_samples(encode_all(7, views=2), encode_all(2, views=2))


def test_seed_decides_the_damage():
    damage = [[sample.damage for sample in encode_all(7, seed=seed)] for seed in (0, 0, 1)]
    assert damage[0] == damage[1] != damage[2]


def test_features_do_not_depend_on_shards_and_workers():
    shards = [range(4), range(4, 7)]
    assert_same_samples(encode_all(3, views=2, shards=shards, workers=2), encode_all(7, views=2))


def test_no_forward_pass_crosses_the_end_of_a_shard():
    encoders = StubEncoders()
    encode_all(3, views=0, encoders=encoders, shards=[range(4), range(4, 7)])
    assert encoders.text.batch_sizes == [3, 1, 3]


def test_each_view_damages_one_modality_and_keeps_the_others():
    samples = encode_all(4, views=3)
    assert [(s.id, s.view) for s in samples] == [(f"c{i}", v) for i in range(7) for v in range(4)]
    modalities = set()
    for i in range(7):
        clean, *views = samples[4 * i : 4 * i + 4]
        assert not any(clean.damage.values())
        for view in views:
            damaged = [name for name in MODALITIES if view.damage[name]]
            assert len(damaged) == (0 if i == 6 else 1)  # the last clip has nothing to damage
            assert_same_features(clean, view, [name for name in MODALITIES if name not in damaged])
            for name in damaged:
                before, after = clean.modality(name), view.modality(name)
                assert before.steps, "a missing modality cannot be damaged"
                assert not np.array_equal(before.sequence, after.sequence)
                assert after.steps == (0 if name == "text" else before.steps)
            modalities |= set(damaged)
    assert modalities == set(MODALITIES)


def test_only_damaged_modalities_are_encoded_again():
    encoders = StubEncoders()
    encode_all(7, encoders=encoders)
    assert (
        sum(sum(tower.batch_sizes) for tower in encoders.towers().values()) == 3 * 7 + 6
    )  # one of each non-empty clip


def test_modality_without_a_tower_is_missing_from_every_clip():
    encoders = StubEncoders()
    encoders.vision = None
    for sample, whole in zip(encode_all(3, 0, encoders=encoders), encode_all(3, 0), strict=True):
        assert sample.vision.sequence.shape == (0, 1) and sample.vision.quality.shape[0] == 0
        assert_same_features(sample, whole, ["audio", "text"])


def test_without_an_audio_tower_the_first_stored_rate_is_used():
    encoders = StubEncoders()
    encoders.audio = None
    assert waveform_rate(encoders, [100, 16000]) == 100
