"""The structure of the code: who may import whom, no import cycles, short functions. ruff checks annotations."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("shared", "stage1_align", "stage2_fusion")
PUBLIC = ("stage1_align", "stage1_align.encoders")
"""What stage2_fusion may import of stage1_align."""


def modules() -> dict[str, ast.Module]:
    """{dotted name: syntax tree} of all modules of the packages."""
    trees = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            trees[name] = ast.parse(path.read_text(), str(path))
    return trees


MODULES = modules()


def imports(name: str) -> set[str]:
    """The modules of ours that a module imports, at its top or lazily; `from package import module` is the module."""
    imported = set()
    for node in ast.walk(MODULES[name]):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name}: relative import"
            for alias in node.names:
                module = f"{node.module}.{alias.name}"
                imported.add(module if module in MODULES else str(node.module))
    return {module for module in imported if module in MODULES} - {name}


IMPORTS = {name: imports(name) for name in MODULES}


def strongly_connected(graph: dict[str, set[str]]) -> list[list[str]]:
    """The groups of two or more modules that reach each other (Tarjan 1972)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    groups = []

    def visit(node: str) -> None:
        order[node] = low[node] = len(order)
        stack.append(node)
        for other in sorted(graph[node]):
            if other not in order:
                visit(other)
            if other in stack:
                low[node] = min(low[node], low[other])
        if low[node] == order[node]:
            place = stack.index(node)
            group, stack[place:] = sorted(stack[place:]), []
            if len(group) > 1:
                groups.append(group)

    for node in sorted(graph):
        if node not in order:
            visit(node)
    return groups


def test_nothing_imports_from_a_commands_folder():
    assert not {f"{a} -> {b}" for a in MODULES for b in IMPORTS[a] if "commands" in b.split(".")}


def test_stage2_fusion_enters_stage1_align_through_its_public_names():
    pairs = {(a, b) for a in MODULES for b in IMPORTS[a] if a.startswith("stage2_fusion") and b.startswith("stage1_")}
    assert not {f"{a} -> {b}" for a, b in pairs if b not in PUBLIC}


def test_stage1_align_and_shared_do_not_import_upwards():
    above = {"shared": ("stage1_align", "stage2_fusion"), "stage1_align": ("stage2_fusion",)}
    pairs = {(a, b) for a in MODULES for b in IMPORTS[a] if b.startswith(above.get(a.partition(".")[0], ()))}
    assert not {f"{a} -> {b}" for a, b in pairs}


def test_no_import_cycles():
    assert not {" <-> ".join(group) for group in strongly_connected(IMPORTS)}


def test_no_function_is_longer_than_60_lines():
    too_long = {
        f"{name}:{node.name}"
        for name, tree in MODULES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno - node.lineno >= 60
    }
    assert not too_long


@pytest.mark.parametrize(("package", "most"), [("shared", 10), ("stage2_fusion", 14)])
def test_few_modules_stand_at_the_top_of_a_package(package, most):
    assert len([path for path in (ROOT / package).glob("*.py") if path.name != "__init__.py"]) <= most
