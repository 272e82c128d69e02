"""`emit configs`: the shipped configurations, or the path of one.

accelerate launch --config_file "$(emit configs cpu_2_processes)" -m stage2_fusion.train --config dual_stage ...
"""

from dataclasses import dataclass

from shared import config as configuration
from shared.config import shipped_configs
from shared.errors import UserError
from shared.options.ranges import CheckedOptions
from shared.registry import nearest
from shared.terminal.closing import closing
from shared.terminal.results import result

PACKAGES = {
    "stage1_align": "stage 1: emit align --config NAME",
    "stage2_fusion": "stage 2: emit fuse --config NAME",
    "accelerate_configs": 'launcher: accelerate launch --config_file "$(emit configs NAME)"',
}
"""{package: where its configurations apply}."""


@dataclass
class ConfigsConfig(CheckedOptions):
    """List the shipped configurations of both stages and of the launcher, or print the path of one."""

    name: str = ""
    """Print only the path of this configuration."""


def main(argv: list[str] | None = None) -> int:
    """Run `emit configs`; UserError when no configuration has the given name."""
    config = configuration.parse(
        ConfigsConfig, argv, prog="emit configs", example="emit configs cpu_2_processes", positional=("name",)
    )
    files = {package: shipped_configs(package) for package in PACKAGES}
    if config.name:
        paths = {name: path for shipped in files.values() for name, path in shipped.items()}
        if config.name not in paths:
            raise UserError(f"no shipped configuration called {config.name!r}: {nearest(config.name, paths)}")
        result(str(paths[config.name]), paths[config.name])
        return 0
    lines = []
    for package, use in PACKAGES.items():
        lines += [use, *(f"  {name:<24}{path}" for name, path in files[package].items())]
    result("\n".join(lines), files)
    closing(then=[("configs", next(iter(files["stage2_fusion"])))])
    return 0
