"""The import of slow libraries: what is said, and that garbage is not searched for."""

import subprocess
import sys

CODE = """
import atexit, gc, sys
from shared.terminal.loading import announce_loading
atexit.register(lambda: print(len(gc.get_objects())))  # runs last
announce_loading()
during = []
gc.callbacks.append(lambda phase, info: during.append("torch" in sys.modules))
import torch
gc.callbacks.clear()
print(sum(during), gc.isenabled(), gc.get_freeze_count() > 10**5, len(gc.get_objects()) < 10**5)
kept = [[] for _ in range(20000)]
"""


def test_garbage_is_not_searched_for_in_an_import_nor_at_the_end():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert done.stderr == "loading torch ...\n"
    after_import, at_end = done.stdout.splitlines()
    assert after_import == "0 True True True"
    assert int(at_end) < 1000
