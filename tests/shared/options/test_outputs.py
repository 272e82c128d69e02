"""Outputs are checked before the work, and nothing but a regular file is ever replaced."""

import errno
import os
import socket
import stat
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from shared import config as configuration
from shared import files
from shared.errors import UserError
from shared.files import atomic_folder, write_text
from shared.options.outputs import OutputEvaluation, OutputFile, OutputFolder, OutputRobustness, check_output_folder
from shared.options.ranges import CheckedOptions


@dataclass
class Writer(CheckedOptions):
    """A command with one output of each kind."""

    source: Path = Path("source")
    tables: list[str] = field(default_factory=list)
    out: OutputFile | None = None
    folder: OutputFolder = Path("folder")
    score: OutputEvaluation | None = None
    curve: OutputRobustness | None = None
    boards: list[OutputFile] = field(default_factory=list)


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "source").mkdir()
    (tmp_path / "a.csv").write_text("input")
    (tmp_path / "link.csv").symlink_to(tmp_path / "a.csv")
    os.mkfifo(tmp_path / "pipe")
    return tmp_path


def parse(*words: str) -> Writer:
    return configuration.parse(Writer, list(words), prog="emit test", example="")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--out", "source"], "--out source: is a folder; give the name of a file"),
        (["--out", ""], "--out .: is a folder"),
        (["--out", "/dev/full"], "--out /dev/full: is a device, not a file"),
        (["--out", "pipe"], "--out pipe: is a pipe, not a file"),
        (["--out", "a.csv/b.json"], "a.csv is a file, not a folder|Not a directory"),
        (["--out", "deep/deeper/" + "x" * 256], "a name is longer than 255 bytes|File name too long"),
        (["--out", "/proc/none/x.json"], "/proc cannot be written"),
        (["--out", "nul\0byte"], "null byte|null character"),
        (["--folder", "a.csv"], "--folder a.csv: is a file, not a folder"),
        (["--folder", "/dev/null"], "--folder /dev/null: is a device"),
        (["--folder", "a.csv/x"], "is a file, not a folder|Not a directory"),
        (["--folder", "source/../source"], "is an input, which it would replace"),
        (["--out", "link.csv", "--tables", "[NAME=a.csv]"], "--out link.csv: is an input"),
        (["--out", "./x/../a.csv", "--tables", "[a.csv]"], "is an input"),
        (["--boards", "[b.csv, ./b.csv]"], "--boards b.csv: given twice"),
        (["--out", "b.json", "--score", "b.json"], "given twice"),
        (["--curve", "curve.csv"], "--curve curve.csv: given twice"),
        (["--score", "x" * 245 + ".json"], "a name is longer than 255 bytes|File name too long"),
    ],
)
def test_output_that_cannot_be_written_is_refused_before_the_work(place, words, told):
    with pytest.raises(UserError, match=told) as refused:
        parse(*words)
    assert "\n" not in str(refused.value)
    assert sorted(path.name for path in place.iterdir()) == ["a.csv", "link.csv", "pipe", "source"]


def test_outputs_that_can_be_written_leave_no_trace_yet(place):
    parse("--out", "new/deep/a.json", "--folder", "new/folder", "--score", "s.json", "--boards", "[b.md, b.csv]")
    parse("--out", "link.csv", "--folder", "source/inside")
    assert sorted(path.name for path in place.iterdir()) == ["a.csv", "link.csv", "pipe", "source"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folder_without_permission_is_refused(place):
    (place / "source").chmod(0o500)
    with pytest.raises(UserError, match="source cannot be written"):
        check_output_folder(place / "source" / "out")


def test_device_pipe_and_socket_are_never_replaced(place):
    server = socket.socket(socket.AF_UNIX)
    server.bind("socket")
    (place / "to_device").symlink_to("/dev/full")
    for name in ("pipe", "socket", "to_device", "/dev/full", "source"):
        before = os.stat(name)
        with pytest.raises(UserError, match="is not a file but a folder, a device or a pipe"):
            write_text(Path(name), "x")
        assert stat.S_IFMT(os.stat(name).st_mode) == stat.S_IFMT(before.st_mode)
    server.close()


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer/a.json"])
def test_file_of_a_saved_folder_is_never_replaced(place, name):
    (place / "encoders" / "tokenizer").mkdir(parents=True)
    write_text(place / "encoders" / "config.json", '{"format": "emit-encoders/2"}')
    with pytest.raises(UserError, match=f"--out encoders/{name}: belongs to the exported encoders in "):
        parse("--out", f"encoders/{name}")
    parse("--out", "encoders/scores.json")
    write_text(place / "encoders" / "config.json", "{}")  # of something else
    parse("--out", f"encoders/{name}")


@pytest.mark.parametrize("name", ["clip.MP4", "labels.csv"])
def test_clip_or_table_in_an_input_folder_is_not_replaced(place, name):
    parse("--out", f"source/{name}")  # nothing is there yet
    (place / "source" / name).touch()
    with pytest.raises(UserError, match=f"--out source/{name}: is a file of the input source"):
        parse("--out", f"source/{name}")
    (place / "source" / "report.json").touch()
    parse("--out", "source/report.json")  # that of an earlier call


def test_file_behind_an_open_stream_is_never_replaced(place):
    (place / "to_stream").symlink_to("to_fd")
    with (place / "log").open("w+") as log:
        (place / "to_fd").symlink_to(f"/dev/fd/{log.fileno()}")
        for name in ("to_stream", f"/dev/fd/{log.fileno()}", f"/proc/self/fd/{log.fileno()}"):
            with pytest.raises(UserError, match=f"--score {name}: is a stream, not a file"):
                parse("--score", name)
            with pytest.raises(UserError, match="is not a file"):
                write_text(Path(name), "x")
        assert os.fstat(log.fileno()).st_ino == (place / "log").stat().st_ino


def test_symbolic_links_stay_and_what_they_point_to_is_written(place):
    write_text(Path("link.csv"), "new")
    assert Path("link.csv").is_symlink() and (place / "a.csv").read_text() == "new"
    (place / "elsewhere").mkdir()
    (place / "out").symlink_to("elsewhere")
    with atomic_folder(place / "out") as partial:
        (partial / "x").touch()
    assert (place / "out").is_symlink() and (place / "elsewhere" / "x").exists()


def test_full_disk_leaves_the_old_file_and_no_part_of_the_new_one(place, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "replace", full)
    with pytest.raises(OSError, match=r"No space left on device: 'a\.csv'"):
        write_text(Path("a.csv"), "new")
    assert Path("a.csv").read_text() == "input" and not list(place.glob(".*"))


def test_name_as_long_as_the_file_system_allows_is_written(place):
    name = Path("x" * 251 + ".txt")
    parse("--out", str(name))
    write_text(name, "fits")
    assert name.read_text() == "fits"
