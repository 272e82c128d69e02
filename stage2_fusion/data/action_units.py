"""Facial action units as further channels of the vision sequence: blendshape scores of MediaPipe's face landmarker.

    emit encode --blendshapes face_landmarker.task --encoders DIR --data DIR --out DIR

The file (Apache-2.0) is a person's own to bring, and `pip install mediapipe` reads it. Scores are of the stored crops,
so that clips damaged on purpose get theirs the same way, and a clip to predict as well.
"""

import dataclasses
from pathlib import Path

import numpy as np
import torch
from torch import nn

from shared.errors import UserError
from shared.files import digest
from shared.media.face_models import MediaPipeTask
from stage2_fusion.data.features import ActionUnitInfo

BLENDSHAPES = (
    "_neutral", "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight", "cheekPuff",
    "cheekSquintLeft", "cheekSquintRight", "eyeBlinkLeft", "eyeBlinkRight", "eyeLookDownLeft", "eyeLookDownRight",
    "eyeLookInLeft", "eyeLookInRight", "eyeLookOutLeft", "eyeLookOutRight", "eyeLookUpLeft", "eyeLookUpRight",
    "eyeSquintLeft", "eyeSquintRight", "eyeWideLeft", "eyeWideRight", "jawForward", "jawLeft", "jawOpen",
    "jawRight", "mouthClose", "mouthDimpleLeft", "mouthDimpleRight", "mouthFrownLeft", "mouthFrownRight",
    "mouthFunnel", "mouthLeft", "mouthLowerDownLeft", "mouthLowerDownRight", "mouthPressLeft", "mouthPressRight",
    "mouthPucker", "mouthRight", "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper",
    "mouthSmileLeft", "mouthSmileRight", "mouthStretchLeft", "mouthStretchRight", "mouthUpperUpLeft",
    "mouthUpperUpRight", "noseSneerLeft", "noseSneerRight",
)  # fmt: skip
"""The scores in MediaPipe's order and by its names, each in [0, 1]: most are an action unit of Ekman's on one side."""

CHANNELS = ("found", *BLENDSHAPES)
"""found is 1 where a face was, else it and all scores are 0."""


class ActionUnits:
    """The face landmarker at `path`. UserError when it cannot be had."""

    def __init__(self, path: Path):
        self.path = Path(path)
        if not self.path.is_file():
            raise UserError(f"{path}: no such file; --blendshapes names the face_landmarker.task of MediaPipe")
        self.net = MediaPipeTask("FaceLandmarker", str(path), output_face_blendshapes=True)
        self.digest = digest(self.path)

    def read(self, frames: np.ndarray) -> np.ndarray:
        """Crops RGB uint8 (T, H, W, 3) -> float32 (T, 53), columns CHANNELS."""
        out = np.zeros((len(frames), len(CHANNELS)), np.float32)
        for row, frame in zip(out, frames, strict=True):
            faces = self.net(frame).face_blendshapes
            if faces:
                scores = {found.category_name: found.score for found in faces[0]}
                row[:] = [1.0, *(scores.get(name, np.nan) for name in BLENDSHAPES)]
        if np.isnan(out).any():
            lacking = np.array(CHANNELS)[np.isnan(out).any(axis=0)]
            raise UserError(f"{self.path}: gives no score {lacking[0]}; take MediaPipe's face_landmarker.task")
        return out

    def describe(self) -> ActionUnitInfo:
        """Their part of features.json."""
        return ActionUnitInfo(str(self.path.resolve()), self.digest, list(CHANNELS))


class WithActionUnits(nn.Module):
    """A vision tower whose sequence goes on with action units, channel after channel."""

    def __init__(self, tower: nn.Module, units: ActionUnits):
        super().__init__()
        self.tower, self.units = tower, units

    @property
    def width(self) -> int:
        return self.tower.width + len(CHANNELS)

    def encode_prepared(self, items: list[np.ndarray]):
        """As `Tower.encode_prepared`. UserError for a tower whose steps are not the pictures."""
        encoded = self.tower.encode_prepared(items)
        sequence, mask = encoded.sequence.float(), encoded.mask  # (B, T, C), (B, T)
        if mask.sum(dim=1).tolist() != [len(frames) for frames in items]:
            raise UserError("--blendshapes needs a vision tower with one step a picture; this one has others")
        read = np.concatenate([self.units.read(frames) for frames in items])  # (N, 53)
        units = sequence.new_zeros(*mask.shape, len(CHANNELS))
        units[mask] = torch.from_numpy(read).to(units)
        return dataclasses.replace(encoded, sequence=torch.cat([sequence, units], dim=-1))


def add_action_units(encoders, path: Path) -> ActionUnits:
    """Let the vision tower of aligned encoders say them too. UserError where there is none."""
    if encoders.vision is None:
        raise UserError("--blendshapes adds to what a vision tower says, and these encoders have none")
    units = ActionUnits(path)
    encoders.vision = WithActionUnits(encoders.vision, units)
    return units
