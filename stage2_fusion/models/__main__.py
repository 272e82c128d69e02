"""List the fusion models and their options.

python -m stage2_fusion.models                 the names
python -m stage2_fusion.models dual_stage      one model, its options, their defaults and reasons
"""

import dataclasses
import sys

from shared.options.described import field_help
from stage2_fusion.models import MODELS


def main(argv: list[str]) -> int:
    for name in argv or MODELS.names():
        family = MODELS.get(name)
        summary = (sys.modules[family.__module__].__doc__ or "").partition("\n")[0]
        print(f"{name:<16}{summary}")
        if argv:
            for option in dataclasses.fields(family.Options):
                default = option.default if option.default_factory is dataclasses.MISSING else option.default_factory()
                print(f"  {option.name} = {default!r}\n      {field_help(family.Options, option.name)}")
    return 0


if __name__ == "__main__":
    from shared.cli import run_main

    run_main(lambda: main(sys.argv[1:]))
