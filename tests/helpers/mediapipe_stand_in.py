"""The used part of the interface of mediapipe, for tests without the package."""

import sys
import types


class BaseOptions(types.SimpleNamespace):
    """As in MediaPipe 1.x: what the library in C gets, with the certificates for its usage reports."""

    def to_ctypes(self):
        return types.SimpleNamespace(model_asset_path=self.model_asset_path.encode(), ca_bundle_path=b"cacert.pem")


def stand_in(monkeypatch, task: str, create) -> None:
    """Give `mediapipe.tasks.python.vision` one task, such as "FaceDetector", which create(options) builds."""
    vision = types.SimpleNamespace(
        **{f"{task}Options": types.SimpleNamespace, task: types.SimpleNamespace(create_from_options=create)}
    )
    python = types.ModuleType("mediapipe.tasks.python")
    python.BaseOptions, python.vision = BaseOptions, vision
    package = types.ModuleType("mediapipe")
    package.Image, package.ImageFormat = types.SimpleNamespace, types.SimpleNamespace(SRGB=1)
    for name, module in (("mediapipe", package), ("mediapipe.tasks", python), ("mediapipe.tasks.python", python)):
        monkeypatch.setitem(sys.modules, name, module)
