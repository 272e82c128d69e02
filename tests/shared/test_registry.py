"""Parts by name, and parts of a user's own by import path."""

import sys

import pytest

from shared.errors import UserError
from shared.registry import Registry, nearest

SHAPES = Registry("shape", {"fraction": "fractions:Fraction", "path": "pathlib:PurePosixPath"})


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_shapes.py").write_text(
        "class Circle:\n    def __init__(self, path=''):\n        self.path = path\n"
    )
    (tmp_path / "broken_shapes.py").write_text("raise RuntimeError('two\\nlines')\n")
    yield
    for name in ("own_shapes", "broken_shapes"):
        sys.modules.pop(name, None)


def test_import_path_names_a_part_of_ones_own(own_module):
    assert SHAPES.get("own_shapes:Circle").__name__ == "Circle"
    assert SHAPES.make("own_shapes:Circle").path == ""
    assert SHAPES.make("own_shapes:Circle:/weights/a.onnx").path == "/weights/a.onnx"


def test_built_in_name_with_a_file_is_not_an_import_path():
    assert str(SHAPES.make("path:weights")) == "weights"
    assert SHAPES.split("path:weights") == ("path", "weights")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fracton", "no shape called 'fracton': did you mean 'fraction'?"),
        ("no_such_package.shapes:Circle", "cannot be imported .*No module named 'no_such_package'.*PYTHONPATH"),
        ("own_shapes:Circel", "module own_shapes has no 'Circel': did you mean 'Circle'?"),
        ("broken_shapes:Circle", r"cannot be imported \(RuntimeError: two lines\)"),
    ],
)
def test_failed_lookup_is_one_line(own_module, name, message):
    with pytest.raises(UserError, match=message) as caught:
        SHAPES.get(name)
    assert "\n" not in str(caught.value)


def test_hint_lists_few_names_and_gives_examples_of_many():
    assert nearest("?", map(str, range(60))).startswith("one of: 0, 1, 10, 11, ")
    assert nearest("?", (f"n{i:02}" for i in range(100))) == "one of 100, such as n00, n20, n40, n60, n80"


def test_saved_folder_imports_no_module_that_nobody_trusts(tmp_path, monkeypatch):
    """Loading a folder executes nothing of its author's choice."""
    (tmp_path / "my_tower_package.py").write_text("raise SystemExit('executed')\n")
    (tmp_path / "my_trusted_package.py").write_text("class Tower: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    towers = Registry("tower", {"small": "collections:OrderedDict"})
    with pytest.raises(UserError, match=r"folder: names custom code.*EMIT_IMPORT=my_tower_package"):
        towers.get("my_tower_package:Tower", saved_in="folder")
    monkeypatch.setenv("EMIT_IMPORT", "other, my_trusted_package")
    assert towers.get("my_trusted_package:Tower", saved_in="folder").__name__ == "Tower"
    monkeypatch.delenv("EMIT_IMPORT")
    assert towers.get("my_trusted_package:Tower", saved_in="folder")  # imported by now
    assert towers.get("small", saved_in="folder")
