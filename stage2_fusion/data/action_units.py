"""Facial action units as extra channels of the vision sequence: blendshape scores of MediaPipe's face landmarker.

    emit encode --blendshapes face_landmarker.task --encoders DIR --data DIR --out DIR

Users download the file (Apache-2.0) themselves; `pip install mediapipe --no-deps` installs its reader. Scores are
computed from the stored face crops, and in the same way for damaged views and clips to predict.
"""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from shared.errors import UserError
from shared.files import digest
from shared.media.face_models import MediaPipeTask
from stage2_fusion.data.feature_info import ActionUnitInfo

if TYPE_CHECKING:
    from stage1_align import AlignedEncoders, Encoded, VisionTower

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
"""The scores in MediaPipe's order and with its names, each in [0, 1]. Most are one of Ekman's action units on one side
of the face."""

CHANNELS = ("found", *BLENDSHAPES)
"""found is 1 in frames with a face; without a face it and all scores are 0."""


class ActionUnits:
    """Reads action units with the face landmarker at `path`. UserError when the file or MediaPipe is missing."""

    def __init__(self, path: Path):
        self.path = Path(path)
        if not self.path.is_file():
            raise UserError(f"{path}: no such file; --blendshapes names the face_landmarker.task of MediaPipe")
        self.net = MediaPipeTask("FaceLandmarker", str(path), output_face_blendshapes=True)
        self.digest = digest(self.path)

    def read(self, frames: np.ndarray) -> np.ndarray:
        """Face crops RGB uint8 (T, H, W, 3) -> float32 (T, 53), columns CHANNELS. UserError when the model lacks
        one."""
        out = np.zeros((len(frames), len(CHANNELS)), np.float32)
        for row, frame in zip(out, frames, strict=True):
            faces = self.net(frame).face_blendshapes
            if faces:
                scores = {shape.category_name: shape.score for shape in faces[0]}
                row[:] = [1.0, *(scores.get(name, np.nan) for name in BLENDSHAPES)]
        if np.isnan(out).any():
            missing = np.array(CHANNELS)[np.isnan(out).any(axis=0)]
            raise UserError(f"{self.path}: gives no score {missing[0]}; take MediaPipe's face_landmarker.task")
        return out

    def describe(self) -> ActionUnitInfo:
        """Their part of features.json."""
        return ActionUnitInfo(str(self.path.resolve()), self.digest, list(CHANNELS))


class VisionWithActionUnits(nn.Module):
    """A vision tower with the action units appended to the channels of its sequence."""

    def __init__(self, tower: "VisionTower", units: ActionUnits):
        super().__init__()
        self.tower, self.units = tower, units

    @property
    def width(self) -> int:
        return self.tower.width + len(CHANNELS)

    def crop_line(self, frame_size: int) -> str | None:
        """As `VisionTower.crop_line`."""
        return self.tower.crop_line(frame_size)

    def encode_prepared(self, items: list[np.ndarray]) -> "Encoded":
        """As `Tower.encode_prepared`. UserError when the steps of the tower are not the frames."""
        encoded = self.tower.encode_prepared(items)
        sequence, mask = encoded.sequence.float(), encoded.mask  # (B, T, C), (B, T)
        if mask.sum(dim=1).tolist() != [len(frames) for frames in items]:
            raise UserError("--blendshapes needs a vision tower with one step per frame; this one has others")
        scores = np.concatenate([self.units.read(frames) for frames in items])  # (N, 53)
        units = sequence.new_zeros(*mask.shape, len(CHANNELS))  # (B, T, 53)
        units[mask] = torch.from_numpy(scores).to(units)
        return dataclasses.replace(encoded, sequence=torch.cat([sequence, units], dim=-1))  # (B, T, C + 53)


def add_action_units(encoders: "AlignedEncoders", path: Path) -> ActionUnits:
    """Append action units to the vision tower of aligned encoders. UserError when they have none."""
    if encoders.vision is None:
        raise UserError("--blendshapes extends the output of a vision tower, and these encoders have none")
    units = ActionUnits(path)
    encoders.vision = VisionWithActionUnits(encoders.vision, units)  # type: ignore[assignment]
    return units
