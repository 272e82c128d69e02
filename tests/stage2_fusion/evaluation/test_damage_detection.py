"""The ceiling and damage detection against values computed by hand."""

import numpy as np
import pytest

from stage2_fusion.evaluation.damage_detection import detect_corpus_damage, label_ceiling, read_truth


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
