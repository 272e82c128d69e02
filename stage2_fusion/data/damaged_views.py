"""Copies of clips with one deliberately damaged modality: quality weights learn from them and are scored on them."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np

from shared.dataset.clip import MODALITIES
from shared.dataset.clip_dataset import ClipSample
from shared.dataset.recipe import Recipe
from shared.media.damage import AUDIO_DAMAGE, VISION_DAMAGE, damage_frames, damage_waveform
from shared.media.faces import MARGIN, FaceDetector, load_detector
from shared.media.quality import VISION_QUALITY, audio_quality, text_quality, vision_quality
from shared.training.sampling import derive_seed

VIEW_GENERATOR = 3
"""Version of the code below, stored with the features. Any change to the damage or its quality signals increments it,
so that `emit encode` does not reuse features with other views."""
FACE_BORDER = 0.125
"""Border added to a crop before face detection, as a share of its side: cascades need room around a face. In crops of a
synthetic corpus, the cascade then finds 99 % of the faces that it found in whole frames; without the border, 98 %."""


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


def damaged_view(clip: ClipSample, view: int, rate: int, seed: int, recipe: Recipe | None) -> DamagedView:
    """Damage one modality of a clip with a waveform at `rate` Hz. Modality, kind and severity are a function of (seed,
    id, view).

    The quality signals of the damaged modality are recomputed, with the face detector that prepared the clips; recipe:
    of the clips, or None if no signals are needed. Text is damaged by removing it. A clip without any modality, or with
    only text, stays as it is: nothing would be left.
    """
    rng = np.random.default_rng(derive_seed("damage", seed, clip.id, view))
    damage = dict.fromkeys(MODALITIES, "")
    present = [name for name in MODALITIES if len(raw_input(clip, name))]
    if present in ([], ["text"]):
        return DamagedView(clip, view, damage)
    return _damage(clip, view, rate, recipe, str(rng.choice(present)), rng)


def view_of_given(
    clip: ClipSample,
    view: int,
    rate: int,
    seed: int,
    recipe: Recipe,
    present: Mapping[str, bool],
    given: Collection[str],
) -> DamagedView:
    """Like `damaged_view`, for a clip with given features (data/given.py): they cannot be damaged like media, so a view
    lacks them. present: whether the clip has features of each modality; one of these is drawn. A clip with only one
    modality stays as it is."""
    names = [name for name in MODALITIES if present[name]]
    damage = dict.fromkeys(MODALITIES, "")
    if len(names) < 2:
        return DamagedView(clip, view, damage)
    rng = np.random.default_rng(derive_seed("damage", seed, clip.id, view))
    name = str(rng.choice(names))
    if name in given:
        return DamagedView(clip, view, {**damage, name: "missing"})
    return _damage(clip, view, rate, recipe, name, rng)


def _damage(
    clip: ClipSample, view: int, rate: int, recipe: Recipe | None, name: str, rng: np.random.Generator
) -> DamagedView:
    """The clip with the modality `name` damaged; see `damaged_view`."""
    damage, severity = dict.fromkeys(MODALITIES, ""), float(rng.uniform(0.4, 1.0))
    if name == "text":
        damage[name] = "missing"
        return DamagedView(replace(clip, transcript="", text_quality=text_quality("")), view, damage)
    if name == "audio":
        damage[name] = kind = str(rng.choice(AUDIO_DAMAGE))
        damaged = replace(clip, waveform=damage_waveform(clip.waveform, rate, kind, rng, severity))
        if recipe is not None:
            damaged.audio_quality = audio_quality(damaged.waveform, rate)
        return DamagedView(damaged, view, damage)
    damage[name] = kind = str(rng.choice(VISION_DAMAGE))
    damaged = replace(clip, frames=damage_frames(clip.frames, kind, rng, severity))
    if recipe is not None:
        face_found = clip.vision_quality[:, VISION_QUALITY.index("face_found")] > 0.5  # (T,)
        face_found = still_found(face_found, clip.frames, damaged.frames, recipe)
        damaged.vision_quality = vision_quality(damaged.frames, face_found)
    return DamagedView(damaged, view, damage)


def still_found(face_found: np.ndarray, clean: np.ndarray, damaged: np.ndarray, recipe: Recipe) -> np.ndarray:
    """In which frames the face is found after damage: bool (T,).

    face_found: bool (T,), whether it was found in the whole frame; clean, damaged: crops RGB uint8 (T, H, W, 3). As in
    preparation, only every few frames are searched, and a frame between two has a face if both have one. A face is lost
    if the detector finds one in the clean crop and none in the damaged one. If it finds none in the clean crop either
    (other resolution, other cropping), the frame keeps its value, so an undamaged crop never loses a face, whatever the
    detector.
    """
    detector, count = load_detector(recipe.detector), len(face_found)
    sampled = np.array(sorted({*range(0, count, recipe.face_every), count - 1})) if count else np.zeros(0, int)
    searched = sampled[face_found[sampled]]
    hit = {i: _finds_face(damaged[i], detector) or not _finds_face(clean[i], detector) for i in searched}
    kept = np.array([hit.get(i, False) for i in sampled])
    before = np.searchsorted(sampled, np.arange(count), side="right") - 1  # (T,) the sampled frame at or before a frame
    after = np.searchsorted(sampled, np.arange(count), side="left")  # (T,) the sampled frame at or after a frame
    return face_found & kept[before] & kept[after]


def _finds_face(crop: np.ndarray, detector: FaceDetector) -> bool:
    """Whether a detector finds a face in a crop RGB uint8 (H, W, 3): first near the middle, which is fast."""
    border = round(FACE_BORDER * len(crop))
    crop = np.pad(crop, ((border, border), (border, border), (0, 0)), mode="edge")
    middle = np.array([[len(crop) / 2, len(crop) / 2, (len(crop) - 2 * border) / MARGIN]], np.float32)  # (1, 3)
    return detector.track(crop, middle) is not None or len(detector.detect(crop)) > 0
