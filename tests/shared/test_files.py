"""Files are written whole, whoever else writes them, and whatever they say."""

import io
import os
import sys

import pytest

from shared.cli import run_main
from shared.files import read_json, write_json, write_text


def test_two_machines_may_write_one_file_at_a_time(tmp_path, monkeypatch):
    """The processes of both may have the same number."""
    replace, asked = os.replace, []

    def meanwhile(source, target):
        if not asked:
            asked.append(source)
            write_text(tmp_path / "a.txt", "theirs")
        replace(source, target)

    monkeypatch.setattr(os, "replace", meanwhile)
    write_text(tmp_path / "a.txt", "ours")
    assert (tmp_path / "a.txt").read_text() == "ours" and list(tmp_path.iterdir()) == [tmp_path / "a.txt"]


def test_names_that_are_no_text_can_be_written(tmp_path):
    write_json(tmp_path / "a.json", {"name": os.fsdecode(b"caf\xe9"), "word": "hé"})
    assert read_json(tmp_path / "a.json", "file", "") == {"name": "caf\udce9", "word": "hé"}


def test_a_terminal_without_the_letters_gets_what_is_printed(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii", write_through=True))
    with pytest.raises(SystemExit) as ended:
        run_main(lambda: print("█"))
    assert not ended.value.code and written.getvalue() == b"\\u2588\n"
