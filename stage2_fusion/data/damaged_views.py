"""Copies of clips with one modality damaged on purpose: quality weights learn from them and are scored on them."""

from dataclasses import dataclass, replace

import numpy as np

from shared.dataset.clip import MODALITIES
from shared.dataset.clip_dataset import ClipSample
from shared.media.damage import AUDIO_DAMAGE, VISION_DAMAGE, damage_frames, damage_waveform
from shared.media.quality import VISION_QUALITY, audio_quality, text_quality, vision_quality
from shared.training.sampling import derive_seed


@dataclass(eq=False)
class DamagedView:
    """A damaged copy of a clip."""

    clip: ClipSample
    view: int
    """1, 2, ..."""
    damage: dict[str, str]
    """Modality to the kind of damage; "" = none."""


def raw_input(clip: ClipSample, modality: str) -> np.ndarray | str:
    """What the encoder of a modality reads: frames (T, H, W, 3), waveform (S,) or transcript; empty when missing."""
    return getattr(clip, {"vision": "frames", "audio": "waveform", "text": "transcript"}[modality])


def damaged_view(clip: ClipSample, view: int, rate: int, seed: int) -> DamagedView:
    """Damage one modality of a clip whose waveform is at `rate` Hz. Modality, kind and severity are a function of
    (seed, id, view).

    The quality signals of the damaged modality are computed again. Text is damaged by removing it. A clip without any
    modality is left alone.
    """
    rng = np.random.default_rng(derive_seed("damage", seed, clip.id, view))
    damage = dict.fromkeys(MODALITIES, "")
    present = [name for name in MODALITIES if len(raw_input(clip, name))]
    if not present:
        return DamagedView(clip, view, damage)
    name, severity = str(rng.choice(present)), float(rng.uniform(0.4, 1.0))
    if name == "text":
        damage[name] = "missing"
        return DamagedView(replace(clip, transcript="", text_quality=text_quality("")), view, damage)
    if name == "audio":
        damage[name] = kind = str(rng.choice(AUDIO_DAMAGE))
        waveform = damage_waveform(clip.waveform, rate, kind, rng, severity)
        return DamagedView(replace(clip, waveform=waveform, audio_quality=audio_quality(waveform, rate)), view, damage)
    damage[name] = kind = str(rng.choice(VISION_DAMAGE))
    frames = damage_frames(clip.frames, kind, rng, severity)
    face_found = clip.vision_quality[:, VISION_QUALITY.index("face_found")] > 0.5  # (T,)
    # A detector would miss damaged faces, the more the worse the damage; without a face it finds none.
    face_found = face_found & (rng.random(len(face_found)) >= (1.0 if kind == "no_face" else severity**2))
    return DamagedView(replace(clip, frames=frames, vision_quality=vision_quality(frames, face_found)), view, damage)
