"""Pickled features: arrays are read, and no code in a pickle is executed."""

import codecs
import os
import pickle

import numpy as np
import pytest

from shared.layouts.vidmimic2.pickles import read_clip_features, read_features
from shared.media.decode import MediaError


def write(path, value, protocol=4):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(value if isinstance(value, bytes) else pickle.dumps(value, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_of_every_protocol_are_read(tmp_path, protocol, order):
    array = np.asarray(np.random.default_rng(0).standard_normal((7, 5)).astype(np.float32), order=order)
    found = read_features(write(tmp_path / "a.pkl", array, protocol), 5)
    assert found.dtype == np.float32 and found.flags["C_CONTIGUOUS"]
    np.testing.assert_array_equal(found, array)


def test_arrays_pickled_by_numpy_2_are_read_by_numpy_1(tmp_path):
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    for protocol in (2, 5):
        old = pickle.dumps(array, protocol=protocol)
        if protocol == 2:  # names end with a newline
            assert b"cnumpy.core." in old
            new = old.replace(b"cnumpy.core.", b"cnumpy._core.")
        else:  # a length stands before the name, and the frame's before all
            name = b"numpy.core.numeric"
            assert bytes([0x8C, len(name)]) + name in old
            renamed = b"numpy._core.numeric"
            new = old.replace(bytes([0x8C, len(name)]) + name, bytes([0x8C, len(renamed)]) + renamed)
            size = int.from_bytes(old[3:11], "little") + 1
            new = new[:3] + size.to_bytes(8, "little") + new[11:]
        np.testing.assert_array_equal(read_features(write(tmp_path / f"{protocol}.pkl", new)), array)


def test_lists_and_dictionaries_of_rows_are_read(tmp_path):
    rows = [[1.0, 2.0], [3.0, 4.0]]
    for i, value in enumerate(
        (rows, np.array(rows), np.array([rows]), {"features": np.array(rows)}, np.array(rows, "f2"))
    ):
        np.testing.assert_array_equal(read_features(write(tmp_path / f"{i}.pkl", value), 2), np.float32(rows))
    np.testing.assert_array_equal(read_features(write(tmp_path / "one.pkl", np.array([1.0, 2.0])), 2), [[1, 2]])
    for i, value in enumerate((np.zeros((0, 2)), [], np.zeros(0))):
        assert read_features(write(tmp_path / f"empty{i}.pkl", value), 2).shape == (0, 2)


class Runs:
    """Unpickling it calls os.mkdir."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


class Hidden(Runs):
    def __reduce__(self):
        return eval, (f"__import__('os').mkdir({self.path!r})",)


@pytest.mark.parametrize("kind", [Runs, Hidden])
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_code_in_a_pickle_is_not_executed(tmp_path, kind, protocol):
    path = write(tmp_path / "evil.pkl", {"features": kind(tmp_path / "made")}, protocol)
    with pytest.raises(MediaError, match="refused: pickle references") as caught:
        read_features(path)
    assert not (tmp_path / "made").exists() and str(path) in str(caught.value)
    with pytest.raises(MediaError, match="object arrays are not allowed"):  # inside an array, too
        read_features(write(tmp_path / "o.pkl", np.array([kind(tmp_path / "made")], dtype=object), protocol))
    assert not (tmp_path / "made").exists()
    pickle.loads(path.read_bytes())
    assert (tmp_path / "made").exists()  # plain pickle executes it


class Calls:
    """Unpickling it calls a function."""

    def __init__(self, function, *arguments, state=None):
        self.reduced = function, arguments, state

    def __reduce__(self):
        return self.reduced


def test_pickle_cannot_reach_memory_beyond_its_bytes(tmp_path):
    """No large allocations, no uninitialized memory, no bytes as pointers."""
    rebuild, scalar = np.core.multiarray._reconstruct, np.core.multiarray.scalar
    unpointed = Calls(np.dtype, "O", False, True, state=(3, "|", None, None, None, -1, -1, 0))
    wide = Calls(np.dtype, "V4", False, True, state=(3, "|", None, None, None, 1 << 20, 1, 0))
    wider = Calls(np.dtype, "V4", False, True, state=(3, "|", (np.dtype("f4"), (1 << 20,)), None, None, 4, 1, 0))
    crafted = {
        "an array of what was in memory": Calls(np.ndarray, (4, 3), "f4"),
        "the same as it is pickled": Calls(rebuild, np.ndarray, (4, 3), b"f"),
        "of another type": Calls(rebuild, np.dtype, (0,), b"b"),
        "bytes as pointers": Calls(np.core.numeric._frombuffer, b"\1" * 24, unpointed, (1, 3), "C"),
        "more bytes than the pickle holds": Calls(np.core.numeric._frombuffer, b"1234", wider, (1, 1 << 20), "C"),
        "more of them as a state": Calls(
            rebuild, np.ndarray, (0,), b"b", state=(1, (1, 1 << 20), wider, False, b"1234")
        ),
        "a scalar without bytes": Calls(scalar, np.dtype("V4000")),
        "a scalar of few bytes": Calls(scalar, wide, b"123"),
        "bytes that double": Calls(codecs.encode, b"1234", "hex"),
    }
    for i, (what, call) in enumerate(crafted.items()):
        for protocol in (2, 4):
            with pytest.raises(MediaError, match="not a readable pickle"):
                read_features(write(tmp_path / f"{i}.pkl", call, protocol), 3)
                pytest.fail(what)
    numbers = [[np.float32(1), np.float64(2)], [np.int64(3), 4.0]]  # scalars as they are pickled
    np.testing.assert_array_equal(read_features(write(tmp_path / "n.pkl", numbers), 2), [[1, 2], [3, 4]])
    big = np.arange(6, dtype=">f4").reshape(2, 3)
    np.testing.assert_array_equal(read_features(write(tmp_path / "b.pkl", big), 3), big)


def bad_files(folder):
    good = pickle.dumps(np.ones((40, 3), np.float32))
    nan = np.ones((4, 3), np.float32)
    nan[2, 1] = np.nan
    return {
        "No such file": folder / "none.pkl",
        "the file is empty": write(folder / "e.pkl", b""),
        "not a readable pickle": write(folder / "cut.pkl", good[:-60]),
        "not a readable pickle ": write(folder / "html.pkl", b"<html>"),
        "object arrays": write(folder / "o.pkl", np.array([None, 1], dtype=object)),
        "an array of <U1": write(folder / "u.pkl", np.array([["a", "b", "c"]])),
        "no array of numbers": write(folder / "text.pkl", "features"),
        "no array of numbers ": write(folder / "ragged.pkl", [[1.0], [1.0, 2.0]]),
        "(2, 4); expected (T, 3)": write(folder / "w.pkl", np.ones((2, 4))),
        "(2, 2, 3)": write(folder / "3d.pkl", np.ones((2, 2, 3))),
        "1 of 4 rows are not finite": write(folder / "nan.pkl", nan),
    }


def test_unreadable_files_raise_one_line(tmp_path):
    for words, path in bad_files(tmp_path).items():
        with pytest.raises(MediaError) as caught:
            read_features(path, 3)
        message = str(caught.value)
        assert words.strip() in message and "\n" not in message and str(path) in message


def test_features_of_a_clip_are_read_from_both_folders(tmp_path):
    rng = np.random.default_rng(0)
    vision, audio = rng.random((9, 384), np.float32), rng.random((30, 768), np.float32)
    write(tmp_path / "vit" / "00001.pkl", vision)
    write(tmp_path / "wav2vec2" / "00001.pkl", audio)
    write(tmp_path / "test_data" / "vit" / "00002.pkl", vision[:2])
    write(tmp_path / "wav2vec2" / "00002.pkl", audio[:, :5])
    both = read_clip_features(tmp_path, "00001")
    np.testing.assert_array_equal(both.vision, vision)
    np.testing.assert_array_equal(both.audio, audio)
    assert both.problems == []
    of_test = read_clip_features(tmp_path, "00002", "test")
    np.testing.assert_array_equal(of_test.vision, vision[:2])
    assert of_test.audio.shape == (0, 768) and "(30, 5)" in of_test.problems[0]
    nothing = read_clip_features(tmp_path, "00003")
    assert nothing.vision.shape == (0, 384) and len(nothing.problems) == 2
