from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from shared.dataset.clip import Clip, ClipSource
from shared.dataset.clip_dataset import ClipDataset
from shared.dataset.crossed_splits import crossed_splits
from shared.dataset.splits import assign_splits, split_dataset
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


def test_texts_with_the_same_words_are_in_one_split():
    words = [f"Words  NUMBER {i % 10}" if i % 2 else f"words number {i % 10}\n" for i in range(40)]
    clips = [Clip(f"{i:02d}", None, text, words_alone=True) for i, text in enumerate(words)]
    split = assign_splits(ClipSource(clips))
    of = {}
    for clip in split.clips:
        assert of.setdefault(" ".join(clip.transcript.lower().split()), clip.split) == clip.split
    assert {*of.values()} == {"train", "valid", "test"} and len(of) == 10
    assert split.notes[-1].endswith("; 30 texts with the words of another are kept with it")
    spoken = [replace(clip, media=Path(f"{clip.id}.wav"), words_alone=False) for clip in clips]  # actors say the same
    assert "kept with it" not in assign_splits(ClipSource(spoken)).notes[-1]


def crossed(clips, subjects, per_video):
    return {f"{i:04d}": (f"s{i % subjects}", f"v{i // per_video}") for i in range(clips)}


@pytest.mark.parametrize(
    ("pairs", "most_left_out"),
    [
        (crossed(600, 100, 4), 0.1),
        ({f"{p}x{v}": (f"s{p}", f"v{v}") for p in range(20) for v in range(20)}, 0.65),  # everybody watched everything
        ({f"{i}": (f"s{i // 5}", f"clip {i}") for i in range(100)}, 0.0),  # nothing is shared
    ],
    ids=["four people a video", "all people all videos", "one clip a video"],
)
def test_crossed_splits_share_neither_kind_of_group(pairs, most_left_out):
    tested = Counter()
    for fold in range(4):
        split = crossed_splits(pairs, 4, fold, 0.15, seed=0)
        assert split.keys() == pairs.keys()
        assert split == crossed_splits(dict(reversed(pairs.items())), 4, fold, 0.15, seed=0)
        for side in (0, 1):
            groups = {part: {pairs[c][side] for c in pairs if split[c] == part} for part in ("train", "valid", "test")}
            assert all(groups.values())
            assert not groups["train"] & groups["test"] | groups["valid"] & (groups["train"] | groups["test"])
        counts = Counter(split.values())
        assert counts[""] <= most_left_out * len(pairs) and counts["train"] > counts["test"] > 0
        tested.update(clip for clip in pairs if split[clip] == "test")
    assert max(tested.values()) == 1  # folds test different people


def test_crossed_splits_without_enough_groups_are_refused():
    with pytest.raises(UserError, match=r"no clip is left for .*: there are too few groups of both kinds for 4 folds"):
        crossed_splits({str(i): ("s", f"v{i}") for i in range(8)}, 4, 0, 0.15, 0)


def test_dataset_is_split_by_two_kinds_of_groups(clips, tmp_path, capsys):
    split_dataset(clips, tmp_path / "fold", by="subject, seed")
    out = capsys.readouterr().out
    data = ClipDataset.open(tmp_path / "fold")
    rows = list(zip(data.column("split"), data.column("group_subject"), data.column("group_seed"), strict=True))
    train, test = ([(s, v) for split, s, v in rows if split == name] for name in ("train", "test"))
    assert train and test
    assert not {s for s, _ in train} & {s for s, _ in test} and not {v for _, v in train} & {v for _, v in test}
    left_out = data.column("split").count("")
    assert f"no subject and no seed is in two splits; {left_out} clips between them are in no split" in out
    assert data.info.split["by"] == "subject,seed"
    for by, words in (
        ("subject,who", "--by who: the clips have no such group"),
        ("seed,seed", "or two different ones"),
    ):
        with pytest.raises(UserError, match=words):
            split_dataset(clips, tmp_path / "none", by=by)
