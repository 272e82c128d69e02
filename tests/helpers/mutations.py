"""Every value of a JSON file replaced by values that make no sense, and what a fresh process then does with it."""

import json
import os
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from shared.errors import UserError

ABSURD = (None, "x", -1, 0, 0.5, 1e9, 10**9, 1e-9, [], {}, True, "../x", "OWNER/NAME")
"""Values that stand for a wrong type, a wrong sign, an absurd size and a place elsewhere."""
Keys = tuple[str | int, ...]


def leaves(value: Any, keys: Keys = ()) -> Iterator[Keys]:
    """The keys of every value in a JSON object, of the objects and lists in it too."""
    if keys:
        yield keys
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from leaves(item, (*keys, key))


@dataclass
class Outcome:
    """What a process did: its result, or the UserError it ended with, or any other end."""

    result: Any = None
    error: str = ""
    crash: str = ""
    seconds: float = 0.0
    megabytes: int = 0
    """Beyond those of the parent."""


def in_child(call: Callable[[], Any], memory: int = 2**31) -> Outcome:
    """The outcome of `call` in a forked process that may take `memory` bytes more than this one."""
    read, write = os.pipe()
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    child = os.fork()
    if child == 0:
        os.close(read)
        outcome: dict[str, Any] = {}
        try:
            with open("/proc/self/statm") as file:
                size = int(file.read().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (size + memory, size + memory))
            resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
            try:
                outcome["result"] = call()
            except UserError as error:
                outcome["error"] = str(error)
            except BaseException as error:
                outcome["crash"] = f"{type(error).__name__}: {error}"[:500]
            outcome["megabytes"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
            os.write(write, json.dumps(outcome).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as file:
        content = file.read()
    _, status = os.waitpid(child, 0)
    outcome = json.loads(content) if content else {"crash": f"status {status}"}
    return Outcome(**outcome, seconds=time.perf_counter() - started)
