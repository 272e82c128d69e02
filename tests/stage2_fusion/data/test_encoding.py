"""`emit encode` with stand-ins for encoders and clips that keep to their contracts."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from stage2_fusion.data import encoding as encode
from stage2_fusion.data.features import MODALITIES


@dataclasses.dataclass
class Encoded:
    pooled: torch.Tensor
    sequence: torch.Tensor
    mask: torch.Tensor
    rate: float | None


class Tower(torch.nn.Module):
    """Steps are simple functions of the input, so that a mix-up of clips shows."""

    sample_rate, width = 100, 3

    def __init__(self, kind: str):
        super().__init__()
        self.kind, self.calls = kind, []
        self.anything = torch.nn.Parameter(torch.zeros(1))

    def steps(self, item):
        if self.kind == "vision":
            return item.reshape(len(item), -1).mean(1) if len(item) else []
        if self.kind == "audio":
            return [np.abs(item[start : start + 25]).mean() for start in range(0, len(item), 25)]
        return [float(len(word)) for word in item.split()]

    def encode_prepared(self, items):
        self.calls.append(len(items))
        rows = [torch.tensor(np.asarray(self.steps(item), dtype=np.float32)) for item in items]
        length = max(1, *(len(row) for row in rows))
        sequence = torch.zeros(len(rows), length, 3)
        mask = torch.zeros(len(rows), length, dtype=torch.bool)
        for i, row in enumerate(rows):
            sequence[i, : len(row)] = row[:, None]
            mask[i, : len(row)] = True
        pooled = sequence.sum(1)[:, :2] / mask.sum(1, keepdim=True).clamp(min=1)
        return Encoded(pooled, sequence, mask, 4.0 if self.kind == "audio" else None)


class Encoders:
    def __init__(self):
        self.vision, self.audio, self.text = Tower("vision"), Tower("audio"), Tower("text")
        self.embed_dim, self.digest, self.config = 2, "e" * 16, {}

    def towers(self):
        return {name: getattr(self, name) for name in MODALITIES if getattr(self, name) is not None}


class Clips:
    """Seven clips; clip i is dark grey i, some lack a modality, the last lacks all."""

    def __init__(self, count=7):
        self.sample_rates = [100]
        rng = np.random.default_rng(0)
        self.items = []
        for i in range(count):
            seconds = 1 + 0.5 * i
            frames = np.zeros((0 if i in (2, 6) else 3 + i, 24, 24, 3), np.uint8) + np.uint8(20 * i + 30)
            waveform = (rng.normal(0, 0.1, 0 if i in (3, 6) else int(100 * seconds))).astype(np.float32)
            self.items.append(
                {
                    "id": f"c{i}",
                    "split": "train",
                    "duration": seconds,
                    "transcript": "" if i in (4, 6) else "so " * (i + 1),
                    "labels": np.full(2, i / 10, np.float32),
                    "groups": {"subject": "s"},
                    "frames": frames,
                    "frame_times": np.linspace(0, seconds, len(frames), endpoint=False, dtype=np.float32),
                    "waveform": waveform,
                    "vision_quality": np.full((len(frames), len(VISION_QUALITY)), 0.9, np.float32),
                    "audio_quality": np.full((math.ceil(len(waveform) / 10), len(AUDIO_QUALITY)), 0.9, np.float32),
                    "text_quality": np.full(len(TEXT_QUALITY), 0.9, np.float32),
                }
            )

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        return self.items[i]

    def waveform(self, i, rate):
        assert rate == 100
        return self.items[i]["waveform"]


quality = pytest.importorskip("shared.media.quality")
VISION_QUALITY, AUDIO_QUALITY, TEXT_QUALITY = quality.VISION_QUALITY, quality.AUDIO_QUALITY, quality.TEXT_QUALITY


def everything(batch_size, views=1, seed=0):
    return list(encode.encode_all(Encoders(), Clips(), views, batch_size, seed))


def test_samples_hold_what_the_encoders_said():
    samples = everything(3, views=0)
    assert [sample["id"] for sample in samples] == [f"c{i}" for i in range(7)]
    for i, sample in enumerate(samples):
        clip = Clips()[i]
        assert (sample["vision"]["sequence"] == 20 * i + 30).all()
        assert sample["vision"]["sequence"].shape == (len(clip["frames"]), 3)
        np.testing.assert_array_equal(sample["vision"]["times"], clip["frame_times"])
        assert len(sample["text"]["sequence"]) == len(clip["transcript"].split())
        steps = len(sample["audio"]["sequence"])
        np.testing.assert_allclose(sample["audio"]["times"], (np.arange(steps) + 0.5) / 4)
        assert sample["audio"]["quality"].shape == (steps, len(AUDIO_QUALITY))
        np.testing.assert_allclose(sample["audio"]["quality"], 0.9, rtol=1e-6)
        assert sample["text"]["quality"].shape == (len(clip["transcript"].split()), len(TEXT_QUALITY))
    assert all(len(samples[6][name]["sequence"]) == 0 and not samples[6][name]["pooled"].any() for name in MODALITIES)


def same(a, b, modalities=MODALITIES):
    for name in modalities:
        for key in ("sequence", "times", "pooled", "quality"):
            np.testing.assert_array_equal(a[name][key], b[name][key])


def test_batches_and_repetition_change_nothing():
    for a, b in zip(everything(7, views=2), everything(2, views=2), strict=True):
        assert {k: a[k] for k in ("id", "view", "damage")} == {k: b[k] for k in ("id", "view", "damage")}
        same(a, b)
    assert any(a["damage"] != b["damage"] for a, b in zip(everything(7), everything(7, seed=1), strict=True))


def test_stretches_and_loader_processes_change_nothing():
    cut = list(encode.encode_all(Encoders(), Clips(), 2, 3, 0, False, [range(0, 4), range(4, 7)], workers=2))
    for a, b in zip(cut, everything(7, views=2), strict=True):
        assert {k: a[k] for k in ("id", "view", "damage")} == {k: b[k] for k in ("id", "view", "damage")}
        same(a, b)
    calls = Encoders()
    list(encode.encode_all(calls, Clips(), 0, 3, 0, False, [range(0, 4), range(4, 7)]))
    assert calls.text.calls == [3, 1, 3]  # no forward pass holds clips of both stretches


def test_each_damaged_view_damages_one_modality_and_keeps_the_others():
    samples = everything(4, views=3)
    assert [(s["id"], s["view"]) for s in samples] == [(f"c{i}", v) for i in range(7) for v in range(4)]
    seen = set()
    for i in range(7):
        clean, *views = samples[4 * i : 4 * i + 4]
        assert not any(clean["damage"].values())
        for view in views:
            damaged = [name for name in MODALITIES if view["damage"][name]]
            seen |= set(damaged)
            assert len(damaged) == (0 if i == 6 else 1)  # the last clip has nothing to damage
            for name in MODALITIES:
                if name in damaged:
                    assert len(clean[name]["sequence"]), "what is missing cannot be damaged"
                    changed = len(view[name]["sequence"]) != len(clean[name]["sequence"]) or not np.array_equal(
                        view[name]["sequence"], clean[name]["sequence"]
                    )
                    assert changed
                    assert len(view[name]["sequence"]) == (0 if name == "text" else len(clean[name]["sequence"]))
                else:
                    same(clean, view, [name])
    assert seen == set(MODALITIES)


def test_only_what_is_damaged_is_encoded_again():
    encoders = Encoders()
    list(encode.encode_all(encoders, Clips(), 1, 7, 0))
    again = sum(sum(getattr(encoders, name).calls) for name in MODALITIES) - 21
    assert again == 6  # one modality of each clip that has any


def test_damage_shows_in_the_quality_signals():
    clip = Clips()[5]
    views = [encode.damaged_view(clip, view, 100, 0) for view in range(1, 40)]
    faces = VISION_QUALITY.index("face_found")
    for view in views:
        if view["damage"]["vision"] == "no_face":
            assert (view["vision_quality"][:, faces] == 0).all()
        if view["damage"]["audio"] == "silence":
            assert not view["waveform"].any()
        if view["damage"]["text"]:
            assert view["transcript"] == ""
    assert clip["transcript"] and clip["waveform"].any()  # the clip itself is untouched


def test_a_modality_without_a_tower_is_absent_from_every_clip():
    encoders, clips = Encoders(), Clips()
    encoders.vision = None
    whole = list(encode.encode_all(Encoders(), clips, 0, 3, 0))
    for sample, other in zip(encode.encode_all(encoders, clips, 0, 3, 0), whole, strict=True):
        assert sample["vision"]["sequence"].shape == (0, 1) and sample["vision"]["quality"].shape[0] == 0
        np.testing.assert_array_equal(sample["audio"]["sequence"], other["audio"]["sequence"])
    encoders.audio = None
    assert encode.sound_rate(encoders, [100, 16000]) == 100
