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


def test_people_are_never_torn_and_shares_are_about_right():
    split = assign_splits(source([f"s{i % 40}" for i in range(400)]))
    of = {}
    for clip in split.clips:
        assert of.setdefault(clip.groups["subject"], clip.split) == clip.split
    assert Counter(of.values()) == {"train": 28, "valid": 6, "test": 6}
    assert "no splits given" in split.notes[-1]


def test_the_order_of_the_clips_changes_nothing():
    forward, backward = source([f"s{i % 9}" for i in range(90)]), source([f"s{i % 9}" for i in range(90)])
    backward.clips.reverse()
    assert {c.id: c.split for c in assign_splits(forward).clips} == {
        c.id: c.split for c in assign_splits(backward).clips
    }


def test_given_splits_are_kept():
    given = source(["a", "b", "c"], split="test")
    assert assign_splits(given) is given


def test_an_unknown_group_is_refused():
    with pytest.raises(UserError, match="did you mean 'subject'"):
        assign_splits(source(["a", "b", "c"]), "Subject")


def test_without_groups_each_clip_is_its_own_and_two_clips_are_not_torn():
    assert Counter(c.split for c in assign_splits(source([""] * 20)).clips) == {"train": 14, "valid": 3, "test": 3}
    assert {c.split for c in assign_splits(source([""] * 2)).clips} == {"train"}
