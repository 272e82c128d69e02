"""The composition of batches: shares, order, slices, resumption; on real shards and tables."""

import copy
import itertools

import numpy as np
import pytest
from helpers.stage1_corpora import number_of, write_shards, write_sounds

from shared.errors import UserError
from stage1_align.config import SourceConfig
from stage1_align.data.mixture import Mixture
from stage1_align.data.sources import open_source


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A stream of 24 pictures, a table of 10 sounds and one of 3."""
    folder = tmp_path_factory.mktemp("corpora")
    stream = SourceConfig("webdataset", str(write_shards(folder / "pictures", 3, 8)), options={"buffer": 5})
    tables = [SourceConfig("csv", str(write_sounds(folder / name, n))) for name, n in (("ten", 10), ("three", 3))]
    return [open_source(config, "train") for config in (stream, *tables)]


def drawn(mixture, epoch=0, first=0, rank=0, world=1):
    """(source, position, number of the item) of each row of each step."""
    steps = mixture.sample_indices(epoch, first, rank, world, pytest.fail)
    return [[(a.source, a.position, number(mixture, a)) for a in step] for step in steps]


def number(mixture, index):
    return number_of(mixture.sources[index.source].sample(index.item, 16000, lambda count: [0]))


def test_single_table_is_read_once_per_epoch(sources):
    mixture = Mixture([sources[1]], [3.0], 4, 0, seed=0)
    assert mixture.steps_per_epoch == 2
    first, second = drawn(mixture, 0), drawn(mixture, 1)
    items = [item for step in first for _, _, item in step]
    assert len(set(items)) == 8 and [position for step in first for _, position, _ in step] == list(range(8))
    assert first == drawn(mixture, 0) != second
    assert drawn(Mixture([sources[1]], [1.0], 4, 0, seed=1)) != first


def test_source_smaller_than_its_share_repeats_in_a_new_order(sources):
    mixture = Mixture([sources[2], sources[0]], [1.0, 1.0], 12, 48, seed=0)
    steps = drawn(mixture)
    for source, size in ((0, 3), (1, 24)):
        rows = sorted((position, item) for step in steps for k, position, item in step if k == source)
        assert [position for position, _ in rows] == list(range(24))
        laps = [[item for _, item in rows[start : start + size]] for start in range(0, 24, size)]
        assert all(sorted(lap) == list(range(size)) for lap in laps)
        assert len({tuple(lap) for lap in laps}) > 1 or size == 24


def test_groups_come_one_after_another_in_a_new_order_each_epoch(sources):
    subjects = ["ann", "bo", "", "ann", "cy", "", "bo", "cy", "ann", "bo"]
    grouped = copy.copy(sources[1])
    grouped.groups = {"subject": subjects}.get
    mixture = Mixture([grouped], [1.0], 5, 10, seed=0, batch_by="subject")
    epochs = [[index.item for step in drawn_indices(mixture, epoch) for index in step] for epoch in range(20)]
    for items in epochs:
        assert sorted(items) == list(range(10))
        runs = [name for name, _ in itertools.groupby(subjects[item] or f"none {item}" for item in items)]
        assert len(runs) == len(set(runs)) == 5  # three people, and two clips of nobody
    assert len({tuple(subjects[item] for item in items) for items in epochs}) > 10
    assert len({tuple(item for item in items if subjects[item] == "ann") for items in epochs}) == 6
    shuffled = Mixture([sources[1]], [1.0], 5, 10, seed=0, batch_by="subject")  # its table knows no subjects
    assert drawn(shuffled) == drawn(Mixture([sources[1]], [1.0], 5, 10, seed=0))


def drawn_indices(mixture, epoch):
    return list(mixture.sample_indices(epoch, 0, 0, 1, pytest.fail))


def test_shares_equal_the_weights_on_average_and_are_never_off_by_a_row(sources):
    weights = [0.05, 5.0, 1.3]
    mixture = Mixture(sources, weights, 16, 16 * 4000, seed=0)
    counts = np.array([np.bincount(mixture.composition(0, step)[0], minlength=3) for step in range(4000)])  # (steps, 3)
    expected = 16 * np.array(weights) / sum(weights)  # (3,)
    assert (counts.sum(1) == 16).all() and (np.abs(counts - expected) < 1).all()
    assert counts.mean(0) == pytest.approx(expected, abs=0.03)
    assert counts[:, 0].max() == 1  # a share below one row gives a row in some steps


def test_positions_continue_where_the_previous_step_stopped(sources):
    mixture = Mixture(sources, [2.0, 1.0, 0.7], 7, 7 * 50, seed=3)
    next_position = [0, 0, 0]
    for step in range(50):
        source, position = mixture.composition(1, step)
        for k in range(3):
            drawn_positions = np.sort(position[source == k])
            assert drawn_positions.tolist() == list(range(next_position[k], next_position[k] + len(drawn_positions)))
            next_position[k] += len(drawn_positions)


@pytest.mark.parametrize("world", [2, 4])
def test_processes_together_draw_the_batch_of_one_process(sources, world):
    mixture = Mixture(sources, [2.0, 1.0, 1.0], 8, 64, seed=0)
    whole = drawn(mixture, 2)
    shares = [drawn(mixture, 2, rank=rank, world=world) for rank in range(world)]
    assert [[row for part in parts for row in part] for parts in zip(*shares, strict=True)] == whole
    assert all(len(part) == 8 // world for share in shares for part in share)


def test_epoch_resumes_at_any_step(sources):
    mixture = Mixture(sources, [2.0, 1.0, 1.0], 8, 64, seed=0)
    whole = drawn(mixture, 1)
    for first in (1, 5, 8):
        again = Mixture(sources, [2.0, 1.0, 1.0], 8, 64, seed=0)
        assert drawn(again, 1, first, rank=1, world=2) == [step[4:] for step in whole[first:]]


def test_invalid_settings_raise(sources):
    with pytest.raises(UserError, match="a stream has no length; set samples_per_epoch"):
        Mixture(sources, [1.0, 1.0, 1.0], 4, 0, seed=0)
    with pytest.raises(UserError, match="each must be above 0"):
        Mixture(sources, [1.0, 0.0, 1.0], 4, 8, seed=0)
    with pytest.raises(UserError, match="fewer than one batch"):
        Mixture(sources[1:], [1.0, 1.0], 14, 0, seed=0)
    with pytest.raises(UserError, match="cannot be shared by 3 processes"):
        drawn(Mixture(sources[1:], [1.0, 1.0], 4, 0, seed=0), world=3)
