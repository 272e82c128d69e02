"""A wheel built from the tree works elsewhere, with every configuration it ships."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("shared", "stage1_align", "stage2_fusion", "accelerate_configs")
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-cache-dir", "-q"]


def run(command: list[str], folder: Path, **environment: str) -> str:
    done = subprocess.run(command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder with the packages as a wheel of a copy of the tree installs them, without their dependencies."""
    folder = tmp_path_factory.mktemp("wheel")
    (folder / "tree").mkdir()
    for name in PACKAGES:
        shutil.copytree(ROOT / name, folder / "tree" / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "tree")
    run([*PIP, "wheel", "--no-deps", "--no-build-isolation", "-w", str(folder), str(folder / "tree")], folder)
    (wheel,) = folder.glob("*.whl")
    run([*PIP, "install", "--no-deps", "--no-index", "--target", str(folder / "site"), str(wheel)], folder)
    return folder / "site"


def test_wheel_holds_every_module_and_every_configuration(installed):
    def files(root: Path) -> set[str]:
        found = (path for name in PACKAGES for path in (root / name).rglob("*.*"))
        return {str(path.relative_to(root)) for path in found if path.suffix in (".py", ".yaml", ".sh")}

    assert files(installed) == files(ROOT)


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["--help"], "usage: emit COMMAND"),
        (["configs", "cpu_2_processes"], "site/accelerate_configs/cpu_2_processes.yaml"),
        (["align", "--config", "tiny", "--data", "d", "--run", "r", "--print_config"], "embed_dim"),
        (["fuse", "--config", "dual_stage", "--data", "d", "--run", "r", "--print_config"], "model: dual_stage"),
    ],
)
def test_installed_command_finds_shipped_configurations(installed, tmp_path, words, shown):
    command = [sys.executable, "-P", "-m", "shared.cli", *words]
    assert shown in run(command, tmp_path, PYTHONPATH=str(installed))
