from collections import Counter

import pytest

from shared.dataset.clip import Clip, ClipSource
from shared.dataset.splits import assign_splits
from shared.errors import UserError


def source(groups, split=""):
    clips = [
        Clip(str(i), None, "hi", (0.5,), {"subject": name} if name else {}, split) for i, name in enumerate(groups)
    ]
    return ClipSource(clips, ("Joy",), ("subject",) if any(groups) else ())


def test_groups_are_kept_whole_and_fractions_are_close():
    split = assign_splits(source([f"s{i % 40}" for i in range(400)]))
    of = {}
    for clip in split.clips:
        assert of.setdefault(clip.groups["subject"], clip.split) == clip.split
    assert Counter(of.values()) == {"train": 28, "valid": 6, "test": 6}
    assert "no splits given" in split.notes[-1]
    assert "train 280 clips of 28 groups, valid 60 clips of 6 groups, test 60 clips of 6 groups" in split.notes[-1]


def test_splits_do_not_depend_on_the_order_of_clips():
    forward, backward = source([f"s{i % 9}" for i in range(90)]), source([f"s{i % 9}" for i in range(90)])
    backward.clips.reverse()
    assert {c.id: c.split for c in assign_splits(forward).clips} == {
        c.id: c.split for c in assign_splits(backward).clips
    }


def test_given_splits_are_kept():
    given = source(["a", "b", "c"], split="test")
    assert assign_splits(given) is given


def test_unknown_group_is_an_error():
    with pytest.raises(UserError, match="did you mean 'subject'"):
        assign_splits(source(["a", "b", "c"]), "Subject")


def test_clips_without_groups_are_split_one_by_one():
    assert Counter(c.split for c in assign_splits(source([""] * 20)).clips) == {"train": 14, "valid": 3, "test": 3}
    assert {c.split for c in assign_splits(source([""] * 2)).clips} == {"train"}
