""" "Not known whether it was trained on these clips" is refused, or marks every table."""

from dataclasses import replace

import numpy as np
import pytest
from helpers import synthetic_features
from helpers.saved_folders import edit
from helpers.synthetic_evaluations import write_evaluation

from shared.dataset.clip_dataset import ClipDataset
from shared.dataset.splits import split_dataset
from shared.dataset.training_clips import TrainingClips, TrainingSource, fingerprints
from shared.errors import UserError
from stage2_fusion.commands.baseline import BaselineConfig, baseline
from stage2_fusion.commands.compare import CompareConfig, compare
from stage2_fusion.commands.ensemble import EnsembleConfig, ensemble
from stage2_fusion.commands.leaderboard import LeaderboardConfig, leaderboard
from stage2_fusion.commands.merge_folds import MergeFoldsConfig, merge_folds
from stage2_fusion.data.encoder_training import EncoderTraining, find_encoder_training
from stage2_fusion.data.feature_info import EncoderInfo, read_info
from stage2_fusion.data.features import read_clips, write
from stage2_fusion.evaluation.comparison import comparison_table
from stage2_fusion.evaluation.result_files import read_evaluation
from stage2_fusion.evaluation.results import MARK
from stage2_fusion.evaluation.scoring import score_table
from stage2_fusion.evaluation.unknown_training import meet_encoders

RNG = np.random.default_rng(0)
LABELS = RNG.random(20)
IDS = [f"v{i:02d}" for i in range(20)]


def noisy(seed):
    return LABELS + np.random.default_rng(seed).normal(0, 0.3, 20)


class Encoders:
    """What comparing reads of aligned encoders."""

    def __init__(self, training_clips, training=None):
        self.training_clips, self.config = training_clips, {"training": training or {}}


def test_clips_of_a_new_split_are_compared_by_content(clips, tmp_path):
    """Encoders trained on the clips' own train split meet those clips again in another fold."""
    own = ClipDataset.open(clips)
    train = np.array(own.column("split")) == "train"
    prints = fingerprints(own)
    record = TrainingClips.of(prints[train], prints[~train], [])
    split_dataset(clips, tmp_path / "fold", folds=2, fold=1)
    about = find_encoder_training(Encoders(record), ClipDataset.open(tmp_path / "fold"), prints)
    assert about.seen == np.array(own.column("id"))[train].tolist() and not about.unknown and not about.notes
    assert about.chosen == np.array(own.column("id"))[~train].tolist()

    loose = TrainingClips.of(
        record.trained[:0], record.chosen[:0], [TrainingSource("x.tar", "wds", "train", None, "?")]
    )
    assert find_encoder_training(Encoders(loose), own, prints).unknown == "its encoders were also trained on x.tar (?)"
    began = {"config": {"towers": {"vision": {"options": {"pretrained": "dinov2"}}, "text": None}}}
    published = find_encoder_training(Encoders(TrainingClips(), began), own, prints)
    assert not published.unknown and "vision tower began from dinov2" in published.notes[0]
    older = find_encoder_training(Encoders(None, {"data_digest": own.digest}), own, prints)
    assert older.seen == about.seen and not older.unknown
    assert "do not record" in find_encoder_training(Encoders(None), own, prints).unknown
    came = find_encoder_training(None, own, prints, ["vision", "audio"])
    assert not came.unknown and "came with the dataset" in came.notes[0]


def test_new_split_does_not_hide_what_encoders_have_seen(tmp_path):
    samples = synthetic_features.samples({"train": 20, "test": 10}, views=1)
    trained = [sample.id for sample in samples if sample.split == "train" and not sample.view]
    about = EncoderTraining(trained, ["test003"])
    write(tmp_path / "f", samples, synthetic_features.info(encoder_training=about))
    older = synthetic_features.info(
        encoders=EncoderInfo("nowhere", "e" * 16, {"training": {"data_digest": "d" * 16}}), encoder_training=None
    )
    write(tmp_path / "older", samples, older)
    for name in ("f", "older"):
        split_dataset(tmp_path / name, tmp_path / f"{name}_fold", folds=2)
        fold = tmp_path / f"{name}_fold"
        test = [clip.id for clip in read_clips(fold) if clip.split == "test"]
        met = meet_encoders(fold, read_info(fold), test)
        assert met.seen == sum(name.startswith("train") for name in test) > 0 and not met.unknown
        assert meet_encoders(fold, read_info(fold), ["test001"]).seen == 0
    note = meet_encoders(tmp_path / "f", read_info(tmp_path / "f"), ["test003"]).notes
    assert note == ["the epoch of the encoders was chosen by 1 of these clips"]
    elsewhere = replace(older, data=replace(older.data, digest="other"))
    assert meet_encoders(tmp_path / "older", elsewhere, test).seen is None
    assert (
        read_info(tmp_path / "f").digest
        == replace(older, encoders=read_info(tmp_path / "f").encoders).with_digest().digest
    )


def test_unknown_training_of_encoders_is_refused_or_marked(tmp_path):
    samples = synthetic_features.samples({"train": 30, "valid": 12, "test": 12}, views=0)
    about = EncoderTraining(unknown="its encoders were also trained on voices.tar")
    write(tmp_path / "f", samples, synthetic_features.info(views=0, encoder_training=about))
    config = BaselineConfig(tmp_path / "f", tmp_path / "ridge.json", bootstrap=20)
    with pytest.raises(
        UserError, match=r"f: it is not known .*voices\.tar; or continue with --allow_unknown_training true"
    ):
        baseline(config)
    marked = baseline(replace(config, allow_unknown_training=True))
    assert f"warning: {MARK}: its encoders were also trained on voices.tar" in score_table(marked)
    again = read_evaluation(tmp_path / "ridge.json")
    assert again.info.seen_by_encoders is None and again.info.unknown_training == about.unknown


def test_every_table_refuses_or_shows_evaluations_that_do_not_know(tmp_path):
    """An evaluation of an earlier version is refused; one that was marked when it was made is shown with its mark."""
    clean = write_evaluation(tmp_path / "clean.json", noisy(1), LABELS, IDS)
    other = write_evaluation(tmp_path / "other.json", noisy(2), LABELS, [f"w{name}" for name in IDS])
    marked = {"seen_by_encoders": None, "unknown_training": "no record"}
    tables = {
        "compare": lambda path, go_on: compare(CompareConfig(path, clean, bootstrap=20, allow_unknown_training=go_on)),
        "ensemble": lambda path, go_on: ensemble(
            EnsembleConfig([path, clean], tmp_path / "e.json", bootstrap=20, allow_unknown_training=go_on)
        ),
        "leaderboard": lambda path, go_on: leaderboard(
            LeaderboardConfig([f"a={path}", f"b={clean}"], bootstrap=20, allow_unknown_training=go_on)
        ),
        "merge": lambda path, go_on: merge_folds(
            MergeFoldsConfig([path, other], tmp_path / "m.json", bootstrap=20, allow_unknown_training=go_on)
        ),
    }
    texts = {
        "compare": comparison_table,
        "ensemble": score_table,
        "leaderboard": lambda board: "\n".join([*board.text(), board.markdown()]),
        "merge": score_table,
    }
    for kind, fields, why in (
        ("encoders", {"seen_by_encoders": None}, "an evaluation of an earlier version"),
        ("model", {"seen": None}, "the model does not record"),
        ("marked", marked, "no record"),
    ):
        path = write_evaluation(tmp_path / f"{kind}.json", noisy(3), LABELS, IDS, **fields)
        for name, table in tables.items():
            if kind != "marked":
                with pytest.raises(
                    UserError, match=rf"{kind}\.json: it is not known .*{why}.*--allow_unknown_training"
                ):
                    table(path, False)
            text = texts[name](table(path, kind != "marked"))
            assert f"{MARK}: {why}" in text, (kind, name)


def test_weights_are_learned_from_unknown_clips_only_on_request(tmp_path):
    members = [write_evaluation(tmp_path / f"m{i}.json", noisy(i), LABELS, IDS) for i in range(2)]
    fit = [
        write_evaluation(
            tmp_path / f"f{i}.json", noisy(i), LABELS, [f"w{name}" for name in IDS], unknown_training="no record"
        )
        for i in range(2)
    ]
    config = EnsembleConfig(members, tmp_path / "e.json", method="ridge", fit=fit, bootstrap=20)
    with pytest.raises(UserError, match="weights cannot be learned"):
        ensemble(config)
    assert ensemble(replace(config, allow_unknown_training=True)).info.unknown_training == "no record"


def test_description_of_encoder_training_is_sealed(tmp_path):
    write(tmp_path / "f", synthetic_features.samples({"test": 4}), synthetic_features.info())
    edit(tmp_path / "f", "encoder_training", "seen", value=3)
    with pytest.raises(UserError, match=r"features\.json: encoder_training"):
        read_info(tmp_path / "f")
