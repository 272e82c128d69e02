"""Real weights and recordings in shared/data beside the repository: a test that needs them is skipped without."""

from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[3] / "shared" / "data"


def real(name: str) -> Path:
    """The file or folder of this name."""
    path = FOLDER / name
    if not path.exists():
        pytest.skip(f"needs {path}, which is not part of the repository")
    return path
