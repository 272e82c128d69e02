"""The part of mediapipe's interface that is used, for tests without the package."""

import sys
import types


def stand_in(monkeypatch, task: str, create) -> None:
    """Let `mediapipe.tasks.python.vision` have one task, such as "FaceDetector", made by create(options)."""
    vision = types.SimpleNamespace(
        **{f"{task}Options": types.SimpleNamespace, task: types.SimpleNamespace(create_from_options=create)}
    )
    python = types.ModuleType("mediapipe.tasks.python")
    python.BaseOptions, python.vision = types.SimpleNamespace, vision
    package = types.ModuleType("mediapipe")
    package.Image, package.ImageFormat = types.SimpleNamespace, types.SimpleNamespace(SRGB=1)
    for name, module in (("mediapipe", package), ("mediapipe.tasks", python), ("mediapipe.tasks.python", python)):
        monkeypatch.setitem(sys.modules, name, module)
