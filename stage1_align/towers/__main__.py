"""List the towers and their options.

python -m stage1_align.towers               all towers, by modality, with the names of their options
python -m stage1_align.towers mel_cnn       one tower, its options, their defaults and reasons
"""

import dataclasses
import sys

from shared.errors import UserError
from shared.options.described import field_help
from shared.registry import nearest
from stage1_align.towers import TOWERS


def main(argv: list[str]) -> int:
    known = {name for registry in TOWERS.values() for name in registry.names()}
    for name in argv:
        if name not in known:
            raise UserError(f"no tower called {name!r}: {nearest(name, known)}")
    for modality, registry in TOWERS.items():
        for name in registry.names():
            if not argv or name in argv:
                describe(modality, name, in_full=bool(argv))
    return 0


def describe(modality: str, name: str, in_full: bool) -> None:
    """Print a tower with the names of its options, or in full with their defaults and reasons."""
    tower = TOWERS[modality].get(name)
    summary = (sys.modules[tower.__module__].__doc__ or "").partition("\n\n")[0]
    print(f"{modality:<8}{name:<13}{' '.join(summary.partition(':')[2].split())}")
    options = dataclasses.fields(tower.Options)
    if not in_full:
        print(f"{'':<21}options: {', '.join(option.name for option in options)}")
        return
    for option in options:
        default = option.default if option.default_factory is dataclasses.MISSING else option.default_factory()
        print(f"  {option.name} = {default!r}\n      {field_help(tower.Options, option.name)}")


if __name__ == "__main__":
    from shared.cli import run_main

    run_main(lambda: main(sys.argv[1:]))
