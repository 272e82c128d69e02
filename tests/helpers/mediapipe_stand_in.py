"""The used part of the interface of mediapipe, for tests without the package."""

import sys
import types


def stand_in(monkeypatch, task: str, create) -> None:
    """Give `mediapipe.tasks.python.vision` one task, such as "FaceDetector", which create(options) builds."""
    vision = types.SimpleNamespace(
        **{f"{task}Options": types.SimpleNamespace, task: types.SimpleNamespace(create_from_options=create)}
    )
    python = types.ModuleType("mediapipe.tasks.python")
    python.BaseOptions, python.vision = types.SimpleNamespace, vision
    package = types.ModuleType("mediapipe")
    package.Image, package.ImageFormat = types.SimpleNamespace, types.SimpleNamespace(SRGB=1)
    for name, module in (("mediapipe", package), ("mediapipe.tasks", python), ("mediapipe.tasks.python", python)):
        monkeypatch.setitem(sys.modules, name, module)
