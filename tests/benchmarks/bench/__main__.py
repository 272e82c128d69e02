"""How fast each part is, beside its baseline and a physical limit, measured in turns in the same run.

make bench                                                            all rows into runs/bench.json
python tests/benchmarks/bench --rows [loss,stage1_step] --turns 5     some rows
python tests/benchmarks/bench --size gpu --out runs/gpu.json          stage 1 at ViT-B/32 and HTSAT-tiny on a GPU
python tests/benchmarks/bench --compare [before.json,after.json]      two files
"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])  # the folder `tests`, as for pytest

if __name__ == "__main__":
    from benchmarks.bench.harness import main

    from shared.cli import run_main

    run_main(main)
