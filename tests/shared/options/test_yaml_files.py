"""YAML is read without surprises, in configurations of every command, and dumped so that it reads back."""

import codecs
import math

import pytest

from shared import config as configuration
from shared.errors import UserError
from shared.options.yaml_files import dump_yaml, parse_yaml, read_yaml, truth
from stage2_fusion.config import FuseConfig

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n" for old, new in ("ab", "bc", "cd", "de", "ef")
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E3", 1000.0),
        (".5", 0.5),
        ("-1.5e+2", -150.0),
        ("12", 12),
        ("0x10", 16),
        ("true", True),
        ("~", None),
        ("", None),
        ("no", "no"),
        ("Yes", "Yes"),
        ("off", "off"),
        ("012", "012"),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("2024-01-31", "2024-01-31"),
        ("[1, {a: b}]", [1, {"a": "b"}]),
        ("a: &x {b: 1}\nc: {<<: *x, d: 2}", {"a": {"b": 1}, "c": {"b": 1, "d": 2}}),
    ],
)
def test_plain_scalars_are_what_people_mean(text, value):
    assert parse_yaml(text, "here") == value and type(parse_yaml(text, "here")) is type(value)


@pytest.mark.parametrize(
    "text", ["no", "1e-4", "1:30", "012", "true", "~", "", "2024-01-31", "a: b", "0o7", ".inf", "=", "é"]
)
def test_dumped_text_is_read_back_as_the_same_text(text):
    assert parse_yaml(dump_yaml({"x": [text, 1e-5, True, None, 3]}), "here") == {"x": [text, 1e-5, True, None, 3]}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("seed: 1\ntrain: {}\nseed: 2", "'seed' appears twice, in lines 1 and 3"),
        ("train: {lr: 1, lr: 2}", "'lr' appears twice, in line 1"),
        ("train:\n\tlr: 1", "indent with spaces, not with tabs"),
        ("seed: 1\n---\nseed: 2", "another document"),
        ("a: [", "not valid YAML"),
        ("a: &a [*a]", "more than 100000 values, or 50 levels"),
        (LAUGHS, "more than 100000 values"),
        ("[" * 3000, "nested too deep"),
        ("!!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("a: !!binary aGk=", "a value of type bytes"),
        ("? [1]\n: 2", "unhashable key"),
        ("a: \x00", "not valid YAML"),
    ],
)
def test_what_is_no_yaml_or_says_two_things_is_one_line(text, told):
    with pytest.raises(UserError, match=told) as refused:
        parse_yaml(text, "a.yaml")
    assert str(refused.value).startswith("a.yaml: ") and "\n" not in str(refused.value)


def test_encodings_with_a_mark_are_read_and_others_refused(tmp_path):
    file = tmp_path / "a.yaml"
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32"):
        file.write_bytes("name: café".encode(encoding))
        assert read_yaml(file) == {"name": "café"}
    file.write_bytes(codecs.BOM_UTF16_BE + "name: café".encode("utf-16-be"))
    assert read_yaml(file) == {"name": "café"}
    for content in ("ok: 1\nname: café".encode("latin-1"), "name: café".encode("utf-16-le")):
        file.write_bytes(content)
        with pytest.raises(UserError, match=r"a.yaml: not (UTF-8 \(line \d\); save it as UTF-8|valid YAML)"):
            read_yaml(file)


def fuse(*words: str) -> FuseConfig:
    return configuration.parse(FuseConfig, ["--data", "d", "--run", "r", *words], prog="emit fuse", example="")


def test_configuration_file_holds_numbers_and_words_as_people_write_them(tmp_path, monkeypatch):
    (tmp_path / "a.yaml").write_text("train: {lr: 1e-4, damaged_views: no, mixed_precision: no}\nseed: 3\n")
    for words in (["--config", "a.yaml", "--seed", "5"], ["--seed", "5", "--config=a.yaml"]):
        monkeypatch.chdir(tmp_path)
        config = fuse(*words)
        assert (config.train.lr, config.train.damaged_views, config.train.mixed_precision) == (1e-4, False, "no")
        assert config.seed == 5  # the command line overrides the file, wherever it stands


def test_second_configuration_overrides_the_first_and_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.yaml").write_text("seed: 3\ntrain: {lr: 0.5, epochs: 2}\n")
    (tmp_path / "b.yaml").write_text("train: {lr: 0.25}\n")
    config = fuse("--config", "a.yaml", "--config", "b.yaml")
    assert (config.seed, config.train.lr, config.train.epochs) == (3, 0.25, 2)
    assert capsys.readouterr().err == "note: --config is given 2 times; a later one overrides: a.yaml, b.yaml\n"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "holds nothing, not options"),
        (b"- 1", "holds a list, not options"),
        (b"seed: null", "--seed is None: expected a whole number"),
        (b"train:", "--train is None: expected options"),
        (b"seed: 1.0", "--seed is 1.0: expected a whole number"),
        (b"seed: true", "--seed is True: expected a whole number"),
        (b"seed: '5'x", "not valid YAML"),
        (b"train: {lr: .nan}", "--train.lr is NaN: expected a number"),
        (b"train: {weight_decay: -1}", "--train.weight_decay is -1.0: expected a number from 0 to 100"),
        (b"train: {mixed_precision: half}", "--train.mixed_precision is half: expected one of no, bf16, auto"),
        (b"train: {lrr: 1}", "did you mean 'lr'"),
        (b"name: caf\xe9", "save it as UTF-8"),
        (b"seed: 1\nseed: 2", "appears twice"),
    ],
)
def test_wrong_configuration_file_is_one_line(content, told, tmp_path, capsys):
    (tmp_path / "a.yaml").write_bytes(content)
    with pytest.raises(SystemExit) as stop:
        fuse("--config", str(tmp_path / "a.yaml"))
    shown = capsys.readouterr().err
    assert stop.value.code == 2 and told in shown and shown.count("\n") == 1


def test_environment_gives_no_options(monkeypatch):
    monkeypatch.setenv("JSONARGPARSE_DEFAULT_ENV", "true")
    monkeypatch.setenv("EMIT_FUSE_SEED", "9")
    monkeypatch.setenv("SEED", "9")
    assert fuse().seed == 0


def test_truth_knows_the_words_of_yaml():
    assert [truth(value) for value in (True, "no", "On", "maybe", 1, math.nan)] == [True, False, True, None, None, None]
