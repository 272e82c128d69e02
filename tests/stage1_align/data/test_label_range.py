"""Labels of sources of pairs on a scale of their own: fractions of it, refused outside it, or damage in a stream."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.stage1_corpora import dump, png, write_shard

from shared.errors import UserError
from stage1_align.config import SourceConfig
from stage1_align.data.captions import label_caption
from stage1_align.data.sources import open_source
from stage1_align.data.sources.base import PairSource, TableSource

KINDS = ("csv", "hf", "hf stream", "webdataset")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    datasets.disable_progress_bars()


def opened(kind: str, folder: Path, values: list[dict[str, float]], **options: Any) -> PairSource:
    """A source of this kind whose items have these labels."""
    name, _, stream = kind.partition(" ")
    for i in range(len(values)):
        (folder / f"{i}.png").write_bytes(png(i))
    if name == "webdataset":
        texts = [dump({"caption": f"item {i}", **each}) for i, each in enumerate(values)]
        path = write_shard(folder / "s.tar", {f"{i:03d}": {"png": png(i), "json": t} for i, t in enumerate(texts)})
    elif name == "csv":
        rows = [f"{i}.png,item {i}," + ",".join(str(value) for value in each.values()) for i, each in enumerate(values)]
        path = folder / "t.csv"
        path.write_text("\n".join([f"image,caption,{','.join(values[0])}", *rows]) + "\n")
    else:
        rows = [json.dumps({"image": f"{i}.png", "caption": f"item {i}", **each}) for i, each in enumerate(values)]
        path = folder / "t.jsonl"
        path.write_text("\n".join(rows) + "\n")
        options |= {"streaming": bool(stream)}
    return open_source(SourceConfig(name, str(path), options=options), "train")


def labels(source: PairSource, count: int) -> np.ndarray:
    return np.stack([source.annotations(item).labels for item in source.first(count)])


@pytest.mark.parametrize("kind", KINDS)
def test_labels_are_fractions_of_their_range(kind, tmp_path):
    values = [{"joy": 0, "fear": 4}, {"joy": 75, "fear": 1}, {"joy": -1, "fear": 7}]
    options = {"labels": ["joy", "fear"], "label_range": {"joy": [0, 100], "fear": [1, 7]}, "missing_labels": -1}
    source = opened(kind, tmp_path, values, **options)
    np.testing.assert_allclose(labels(source, 3), [[0, 0.5], [0.75, 0], [np.nan, 1]])
    item = list(source.first(2))[1]
    sample = source.sample(item, None, lambda count: [])
    assert sample.annotations.labels.tolist() == [0.75, 0]
    assert label_caption(sample.annotations.labels, source.label_names, np.random.default_rng(0)) in (
        "strong joy",
        "intense joy",
    )


@pytest.mark.parametrize("kind", KINDS)
def test_labels_outside_their_range_are_refused(kind, tmp_path):
    values = [{"joy": 0.5}, {"joy": 41.3}, {"joy": 80}]
    with pytest.raises(
        UserError, match=r"2 of 3 labels of joy lie outside \[0, 1\].*--label_range=0,100 to the options"
    ):
        opened(kind, tmp_path, values, labels=["joy"])


def test_emi_columns_outside_are_refused_and_other_numbers_are_no_labels(tmp_path, capsys):
    with pytest.raises(UserError, match=r"labels of Joy lie outside"):
        opened("csv", tmp_path, [{"Joy": 50}, {"Joy": 20}])
    assert opened("csv", tmp_path, [{"glad": 0.5, "width": 640}, {"glad": 0, "width": 320}]).label_names == ["glad"]
    assert "not labels, since their values are not in [0, 1]: width; if they are" in capsys.readouterr().err
    source = opened("csv", tmp_path, [{"glad": 50}, {"glad": 20}], label_range="0,100")
    assert labels(source, 2).tolist() == [[0.5], [pytest.approx(0.2)]]


@pytest.mark.parametrize("kind", ["hf stream", "webdataset"])
def test_a_late_label_outside_is_damage_of_its_item(kind, tmp_path):
    values = [{"joy": 0.5}] * 110 + [{"joy": 41.3}]
    source = opened(kind, tmp_path, values, labels=["joy"])
    assert not isinstance(source, TableSource)
    item = list(source.first(111))[110]
    sample = source.sample(item, None, lambda count: list(range(count)))
    assert np.isnan(sample.annotations.labels).all() and "joy 41.3 lies outside [0, 1]" in sample.damage
    assert sample.frames.shape[0] == 1 or kind == "hf stream"
    with pytest.raises(UserError, match=r"41.3 of 'row 110'"):
        opened("hf", tmp_path, values, labels=["joy"])  # a table is looked at as a whole
