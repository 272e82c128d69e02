"""Files are written atomically, also by several processes, and with any content."""

import io
import os
import sys

import pytest

from shared.cli import run_main
from shared.files import read_json, write_json, write_text


def test_two_machines_write_the_same_file(tmp_path, monkeypatch):
    """Their processes may have the same id."""
    replace, sources = os.replace, []

    def meanwhile(source, target):
        if not sources:
            sources.append(source)
            write_text(tmp_path / "a.txt", "theirs")
        replace(source, target)

    monkeypatch.setattr(os, "replace", meanwhile)
    write_text(tmp_path / "a.txt", "ours")
    assert (tmp_path / "a.txt").read_text() == "ours" and list(tmp_path.iterdir()) == [tmp_path / "a.txt"]


def test_file_names_that_are_not_unicode_are_escaped(tmp_path):
    write_json(tmp_path / "a.json", {"name": os.fsdecode(b"caf\xe9"), "word": "hé"})
    assert read_json(tmp_path / "a.json", "file", "") == {"name": "caf\udce9", "word": "hé"}


def test_output_is_escaped_where_the_terminal_encoding_lacks_a_character(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii", write_through=True))
    with pytest.raises(SystemExit) as stop:
        run_main(lambda: print("█"))
    assert not stop.value.code and written.getvalue() == b"\\u2588\n"
