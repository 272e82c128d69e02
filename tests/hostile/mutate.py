"""Seeded mutations of files, as disks, editors, transfers and hostile authors make them."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

ODD_VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 3, 0.5, 1e-9, 1e9, 10**18, float("nan"), float("inf"), [], {}, [[]], [0] * 1000,
    "", "x", "none", "0", "nan", "../x", "/etc/passwd", "a" * 10_000, "bf16", {"a": {"b": None}}, "\x00", "é\ud800",
    "OWNER/NAME", "hf-hub:OWNER/NAME", "local-dir:/etc", "http://192.0.2.1/x", "os:system", "builtins:exec",
]  # fmt: skip
ODD_CELLS = [
    "", " ", "nan", "None", "NULL", "N/A", "-1", "1e9", "0,5", "0_6", "50%", "x", '"', "'", '\\"', ";", "\t", "\r",
    "\n", "\0", "=1+1", "../../etc/passwd", "/dev/zero", "http://192.0.2.1/a.mp4", "a" * 200_000, "\ufeff", "０.５",
    "−0.5", "1/2", "inf",
]  # fmt: skip


def mutated_bytes(data: bytes, rng: random.Random) -> bytes:
    """Flipped, cut, zeroed, moved, repeated, inserted or appended bytes."""
    if not data:
        return rng.randbytes(rng.randint(1, 64))
    at, length = rng.randrange(len(data)), rng.choice([1, 4, 16, 256, max(1, len(data) // 4)])
    kinds: list[Callable[[], bytes]] = [
        lambda: _flipped(data, rng, rng.choice([1, 4, 64])),
        lambda: _flipped(data[:512], rng, 4) + data[512:],
        lambda: data[:at],
        lambda: data[at:],
        lambda: data[:at] + bytes(len(data[at : at + length])) + data[at + length :],
        lambda: data[:at] + data[at + length :],
        lambda: data[:at] + data[at : at + length] * 2 + data[at + length :],
        lambda: data[:at] + rng.randbytes(length) + data[at:],
        lambda: data[:at] + b"\xff" * len(data[at : at + length]) + data[at + length :],
        lambda: data + rng.randbytes(length),
        lambda: data + data,
        lambda: b"",
        lambda: bytes(len(data)),
    ]
    return rng.choice(kinds)()


def _flipped(data: bytes, rng: random.Random, count: int) -> bytes:
    changed = bytearray(data)
    for _ in range(count):
        if changed:
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def mutated_json(text: str, rng: random.Random) -> str:
    """One value, at any depth, becomes an odd one or disappears, or an unknown key is added."""
    root = json.loads(text)
    places: list[tuple[Any, Any]] = []

    def visit(value: Any) -> None:
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, item in items:
            places.append((value, key))
            visit(item)

    visit(root)
    parent, key = rng.choice(places)
    kind = rng.random()
    if kind < 0.15:
        del parent[key]
    elif kind < 0.25 and isinstance(parent, dict):
        parent[rng.choice(["attn_implementation", "auto_map", "_name_or_path", "trust_remote_code", "x"])] = rng.choice(
            ODD_VALUES
        )
    elif kind < 0.35 and isinstance(parent, list):
        rng.shuffle(parent)
    elif kind < 0.5 and isinstance(parent[key], int | float) and not isinstance(parent[key], bool):
        parent[key] = parent[key] * rng.choice([-1, 2, 10, 1e6]) + rng.choice([0, 1])
    else:
        parent[key] = rng.choice(ODD_VALUES)
    return json.dumps(root)


def mutated_table(text: str, rng: random.Random) -> str:
    """One cell, line, separator or column changes."""
    lines = text.splitlines()
    row = rng.randrange(len(lines))
    cells = lines[row].split(",")
    kind = rng.randrange(8)
    if kind < 4:
        cells[rng.randrange(len(cells))] = rng.choice(ODD_CELLS)
        lines[row] = ",".join(cells)
    elif kind == 4:
        lines.insert(row, rng.choice([lines[row], "", ",,,,,", "#", "sep=;", rng.choice(ODD_CELLS)]))
    elif kind == 5:
        lines[row] = ",".join(cells[:-1] if rng.random() < 0.5 else [*cells, "x"])
    elif kind == 6:
        lines = [line.replace(",", rng.choice([";", "\t", "|"])) for line in lines]
    else:
        del lines[row]
    return rng.choice(["\n", "\n", "\r\n", "\r"]).join(lines) + "\n"


def mutated_yaml(text: str, rng: random.Random) -> str:
    """One value becomes an odd one, or a line is repeated, moved or removed."""
    lines = text.splitlines()
    row = rng.randrange(len(lines))
    kind = rng.randrange(4)
    if kind < 2 and ":" in lines[row]:
        odd = rng.choice([*ODD_VALUES, "!!python/object/apply:os.system [touch executed]", "&a [*a]", "1e-4", "@", "{"])
        value = odd if isinstance(odd, str) else json.dumps(odd)
        lines[row] = lines[row].split(":")[0] + ": " + value.encode("utf-8", "replace").decode()
    elif kind == 2:
        lines.insert(rng.randrange(len(lines)), lines[row])
    else:
        del lines[row]
    return "\n".join(lines) + "\n"


TEXT_MUTATIONS: dict[str, Callable[[str, random.Random], str]] = {
    ".json": mutated_json,
    ".csv": mutated_table,
    ".yaml": mutated_yaml,
}


def mutate_file(path: Path, rng: random.Random) -> str:
    """Mutate a file in place, by its structure or as bytes; returns what was done, in a few words."""
    data = path.read_bytes()
    by_structure = TEXT_MUTATIONS.get(path.suffix)
    if by_structure and rng.random() < 0.75:
        text = by_structure(data.decode(), rng)
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        return f"{path.name}: structure"
    path.write_bytes(mutated_bytes(data, rng))
    return f"{path.name}: bytes"


def mutate_folder(folder: Path, rng: random.Random) -> str:
    """Mutate, empty, delete or rename one file of a folder."""
    path = rng.choice(sorted(path for path in folder.rglob("*") if path.is_file()))
    if rng.random() < 0.9:
        return mutate_file(path, rng)
    if rng.random() < 0.5:
        path.unlink()
        return f"{path.name}: deleted"
    other = rng.choice(sorted(path for path in folder.rglob("*") if path.is_file()))
    data = path.read_bytes()
    path.write_bytes(other.read_bytes())
    other.write_bytes(data)
    return f"{path.name}: exchanged with {other.name}"
