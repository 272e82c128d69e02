"""The ceiling and damage detection against values computed by hand."""

import numpy as np
import pytest

from shared.errors import UserError
from stage2_fusion.evaluation.damage_detection import (
    detect_corpus_damage,
    detect_passing_damage,
    has_passing_damage,
    label_ceiling,
    read_truth,
)
from stage2_fusion.inference import StepExplanation


@pytest.mark.parametrize(
    "rows, ids, expected",
    [
        (["clips/b.mp4", "clips/a.mp4"], ["a", "b"], [1, 0]),
        (["a", "b", "other"], ["x/b.mp4"], [1]),
        (["7", "8.0"], ["00008", "00007"], [1, 0]),
        (["clip_1", "clip_01"], ["clip_01"], [1]),
        (["clip.v2", "clip.v3"], ["clip.v3", "clip.v2"], [1, 0]),
        (["s1/x", "s2/x"], ["s2/x", "s1/x"], [1, 0]),
        (["s1/x", "s2/x"], ["x"], "1 of 1 clip have no row of their own, such as 'x'; its ids look like s1/x, s2/x"),
        (["a", "a", "b"], ["a"], "1 id stands in more than one row, such as 'a'; leave one"),
        (["clip_1", "clip_001"], ["clip_01"], "1 of 1 clip have no row"),
        (["a", "b"], ["a", "b", "c", "d"], "of 4 clips have no row of their own, such as 'c'; its ids look like a, b"),
    ],
)
def test_rows_of_the_truth_are_those_of_the_clips(rows, ids, expected, tmp_path):
    path = tmp_path / "truth.csv"
    path.write_text("id,true_a\n" + "".join(f"{name},{i}\n" for i, name in enumerate(rows)))
    if isinstance(expected, str):
        with pytest.raises(UserError) as caught:
            read_truth(path, ids)
        assert expected in str(caught.value) and "\n" not in str(caught.value)
    else:
        assert [int(row["true_a"]) for row in read_truth(path, ids)] == expected


def test_a_cell_of_the_truth_that_is_no_number_is_one_line(tmp_path):
    path = tmp_path / "truth.csv"
    path.write_text("id,expected_a\nx,\ny,1\n")
    with pytest.raises(UserError, match="a cell is not a number"):
        label_ceiling(path, read_truth(path, ["x", "y"]), np.zeros((2, 1)), ["a"])


def test_ceiling_and_damage_match_hand_computation(tmp_path):
    path = tmp_path / "truth.csv"
    path.write_text(
        "id,true_a,expected_b,vision_damage,audio_damage,text_damage\n"
        "clips/0.mp4,0,1,blur,no_track,\n"
        "clips/1.mp4,0.5,2,,noise,missing\n"
        "clips/2.mp4,1,3,occlusion,silence,\n"
        "clips/3.mp4,0.2,4,,,\n"
        "clips/4.mp4,0.3,5,blur,,\n"
        "clips/5.mp4,0.4,6,darkness,,missing\n"
    )
    labels = np.array([[1.0], [3.0], [2.0], [np.nan], [np.nan], [np.nan]])
    weights = np.array(
        [[0.2, 0, 0.8], [0.5, 0.5, 0], [0.6, 0.1, 0.3], [0.4, 0.3, 0.3], [0.1, 0.6, 0.3], [0.45, 0.55, 0]]
    )
    truth = read_truth(path, [str(i) for i in range(6)])
    assert label_ceiling(path, truth, labels, ["b"]).mean == pytest.approx(0.5)
    # What labels of the intensities 0, 0.5 and 1 are on average, by quadrature (see the test of expected_labels).
    by_hand = np.corrcoef([0.001, 0.527521, 0.875879], labels[:3, 0])[0, 1]
    assert label_ceiling(path, truth, labels, ["a"]).mean == pytest.approx(by_hand, abs=1e-5)
    report = detect_corpus_damage(truth, weights)
    # vision: among clips with all modalities, damaged .6 and .1 against .4; with vision and audio, .45 against .5; clip
    # 0 compares with none. Two of three pairs are won.
    assert report.vision.auc == pytest.approx(2 / 3)
    assert report.vision.by_kind == {"blur": 1.0, "darkness": 1.0, "occlusion": 0.0}
    # audio: the clip without a track is left out; all three: .1 against .3 and .6; vision and audio: .5 against .55
    assert report.audio.auc == pytest.approx(1.0) and report.audio.clips == 2
    assert report.text is None
    assert report.mean_auc == pytest.approx(5 / 6)


def test_weights_of_steps_are_scored_by_the_seconds_of_damage():
    """By hand: two clips of four steps; the face of the first is damaged in its steps 1 and 2, that of the second in
    step 3. Three damaged steps against five others: all pairs but that of 0.5 with 0.4 are won."""
    truth = [
        {"vision_damage": "blur", "vision_damage_spans": "0.400-1.200", "audio_damage_spans": ""},
        {"vision_damage": "darkness", "vision_damage_spans": "1.500-2.000", "audio_damage_spans": ""},
    ]
    times = np.array([0.25, 0.75, 1.1, 1.75], np.float32)
    vision = np.array([[0.9, 0.2, 0.5, 0.8], [0.7, 0.6, 0.4, 0.1]])
    steps = [
        StepExplanation(np.stack([of_clip, np.full(4, 0.5), np.full(4, 0.5)], axis=1), times, None)
        for of_clip in vision
    ]
    assert has_passing_damage(truth) and not has_passing_damage([{"vision_damage": "blur"}])
    report = detect_passing_damage(truth, steps)
    assert report.vision.auc == pytest.approx(14 / 15) and report.vision.clips == 2
    assert report.vision.by_kind == {"blur": pytest.approx(9 / 10), "darkness": 1.0}
    assert report.audio is None and report.text is None
    per_clip = [StepExplanation(np.full((4, 3), value), times, None) for value in (0.3, 0.6)]
    found = detect_passing_damage(truth, per_clip).vision
    # damaged .3 .3 .6 against .3 .3 and .6 .6 .6: .3 ties with two and beats three (4 of 5), twice; .6 ties with three
    assert found.auc == pytest.approx((4 + 4 + 1.5) / 15)
    no_times = [StepExplanation(step.weights, None, None) for step in steps]
    assert detect_passing_damage(truth, no_times).vision is None
