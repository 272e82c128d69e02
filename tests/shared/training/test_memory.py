import platform
import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys
from shared.training.memory import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [bytearray(b"1") * (12 * 2**20 + 4096 * i) for i in range(8)]
    del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

if "keep" in sys.argv:
    keep_freed_memory()
print(*(faults() for _ in range(4)))
"""


def page_faults(*words: str) -> list[int]:
    """Of taking and freeing the same blocks of 96 MiB, four times."""
    result = subprocess.run([sys.executable, "-c", SCRIPT, *words], capture_output=True, text=True, check=True)
    return [int(number) for number in result.stdout.split()]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_freed_blocks_are_taken_again_without_a_page_fault():
    first, *_, last = page_faults("keep")
    assert last < first / 10
    assert last < page_faults()[-1] / 10  # by default they go back to the system each time
