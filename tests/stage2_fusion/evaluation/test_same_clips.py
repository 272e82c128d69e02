"""Two sets of clips share those of equal content: not those of equal ids, which other clips may have."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from helpers import synthetic_features
from helpers.synthetic_evaluations import fingerprint, write_evaluation

from shared.dataset.shards import save_table
from shared.errors import UserError
from shared.saved.checksum import FEATURES, write_description
from stage2_fusion.commands.baseline import BaselineConfig, baseline
from stage2_fusion.commands.ensemble import EnsembleConfig, combine_predictions, ensemble
from stage2_fusion.commands.merge_folds import MergeFoldsConfig, merge_folds
from stage2_fusion.commands.robustness import RobustnessConfig, robustness
from stage2_fusion.data.feature_info import DataInfo, read_info
from stage2_fusion.data.features import FINGERPRINTS, feature_table, read_clips, write
from stage2_fusion.evaluation.bootstrap import group_by_clips
from stage2_fusion.evaluation.gating import member_quality
from stage2_fusion.evaluation.result_files import read_evaluation
from stage2_fusion.evaluation.results import MARK
from stage2_fusion.evaluation.same_clips import ClipSet, shared_clips
from stage2_fusion.evaluation.scoring import score_table
from stage2_fusion.prediction.tables import read_prediction_table
from stage2_fusion.report.baseline import cheap_baselines
from stage2_fusion.report.content import NotFound
from stage2_fusion.report.inputs import Inputs

COUNTS = {"train": 40, "valid": 24, "test": 20}
ELSEWHERE = DataInfo("elsewhere", "a" * 16, {"frame_rate": 4})
KINDS = ("ridge", "kernel")


def copied(sample, **fields):
    """The same clip under another id, whose pictures were prepared in another way."""
    changed = np.array([sample.fingerprints[0], sample.fingerprints[1] + 1, 7], np.uint64)
    return replace(sample, id=f"copy of {sample.id}", fingerprints=changed, **fields)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Features `a`; `b`, other clips with the same ids; `copy`, the clips of `a` under other ids in another order;
    `old_b`, the features `b` of an earlier version. NAME_SPLIT_KIND.json: baselines that were fitted to `a`."""
    folder = tmp_path_factory.mktemp("same")
    a, info = synthetic_features.samples(COUNTS, views=0), synthetic_features.info(views=0)
    elsewhere = replace(info, data=ELSEWHERE)
    write(folder / "a", a, info)
    write(folder / "b", synthetic_features.samples(COUNTS, views=0, seed=1), elsewhere)
    write(folder / "copy", [copied(sample) for sample in a][::-1], elsewhere)
    shutil.copytree(folder / "b", folder / "old_b")
    table = feature_table(folder / "b", read_info(folder / "b")).remove_columns(FINGERPRINTS).data.table
    shutil.rmtree(folder / "old_b" / "data")
    save_table(table, folder / "old_b" / "data", elsewhere.with_digest().digest)
    write_description(folder / "old_b", FEATURES, read_info(folder / "b").to_json())
    for name in ("a", "b", "copy", "old_b"):
        for split in ("valid", "test"):
            for kind in KINDS:
                options = {"kind": kind, "split": split, "scored_data": None if name == "a" else folder / name}
                options |= {"allow_unknown_training": name == "old_b", "bootstrap": 0}
                baseline(BaselineConfig(folder / "a", folder / f"{name}_{split}_{kind}.json", **options))
    return folder


def both(folder, name):
    return [folder / f"{name}_{kind}.json" for kind in KINDS]


def of_earlier_version(path, to):
    """The files of an evaluation without what tells clips apart."""
    content = json.loads(path.read_text())
    for key in ("data", "fingerprints_digest"):
        content["clips"].pop(key, None)
    to.write_text(json.dumps(content))
    for what in ("predictions", "labels"):
        shutil.copy(path.with_name(f"{path.stem}_{what}.csv"), to.with_name(f"{to.stem}_{what}.csv"))
    return to


@pytest.mark.parametrize("method", ["ridge", "grid"])
def test_weights_are_learned_from_other_clips_whatever_the_ids(folder, tmp_path, method):
    def weighted(name, **options):
        options = {"method": method, "fit": both(folder, "a_valid"), "bootstrap": 0, **options}
        return ensemble(EnsembleConfig(both(folder, name), tmp_path / "e.json", **options))

    assert len(weighted("b_valid").ids) == 24  # other clips, all of whose ids are those of the clips that teach
    with pytest.raises(
        UserError,
        match=r"a_valid_ridge\.json: 24 of its clips are also to be scored, such as 'valid000' \('copy of valid000' ",
    ):
        weighted("copy_valid")
    with pytest.raises(UserError, match=r"24 of its clips are also to be scored, such as 'valid000'; weights"):
        weighted("a_valid")
    combined = weighted("copy_test")
    assert combined.ids[0] == "copy of test000" and combined.info.unknown_training == ""
    assert combined.fingerprints is not None and combined.info.data == ELSEWHERE.digest


def test_weights_are_not_learned_where_it_is_not_known_whether_clips_are_scored(folder, tmp_path):
    """Features without fingerprints, of another clip dataset than the clips that teach."""
    config = EnsembleConfig(both(folder, "old_b_test"), tmp_path / "e.json", method="ridge", bootstrap=0)
    config.fit = both(folder, "a_valid")
    why = "it is not known whether clips that decide the weights are also scored"
    with pytest.raises(UserError, match=rf"a_valid_ridge\.json: {why}.*--allow_unknown_training true, which marks"):
        ensemble(config)
    marked = ensemble(replace(config, allow_unknown_training=True))
    assert f"{MARK}: " in score_table(marked) and why in marked.info.unknown_training


def test_evaluations_of_earlier_versions_go_by_ids_within_one_feature_dataset(folder, tmp_path):
    old = {
        name: [of_earlier_version(path, tmp_path / path.name) for path in both(folder, name)]
        for name in ("a_valid", "a_test", "copy_test")
    }
    assert all(read_evaluation(path).fingerprints is None for path in old["a_valid"])

    def weighted(scored, fit):
        return ensemble(EnsembleConfig(scored, tmp_path / "e.json", method="ridge", fit=fit, bootstrap=0))

    assert weighted(old["a_test"], old["a_valid"]).info.unknown_training == ""
    assert weighted(both(folder, "a_test"), old["a_valid"]).info.unknown_training == ""
    with pytest.raises(UserError, match="20 of its clips are also to be scored"):
        weighted(both(folder, "a_test"), old["a_test"])
    for scored in (old["copy_test"], both(folder, "copy_test")):
        with pytest.raises(UserError, match="not known whether clips that decide the weights"):
            weighted(scored, old["a_valid"])


def test_folds_hold_no_copies_of_each_other(folder, tmp_path):
    def merged(*names, out="m"):
        parts = [folder / f"{name}_ridge.json" if isinstance(name, str) else name for name in names]
        return merge_folds(MergeFoldsConfig(parts, tmp_path / f"{out}.json", bootstrap=0))

    with pytest.raises(UserError, match=r"20 clips of one are in the other under another id, such as 'copy of test"):
        merged("a_test", "copy_test")
    with pytest.raises(UserError, match="score different clips called 'test000'; give folds of one dataset"):
        merged("a_test", "b_test")
    whole = merged("a_test", "a_valid")
    own = {clip.id: clip.fingerprints for clip in read_clips(folder / "a")}
    np.testing.assert_array_equal(whole.fingerprints, [own[name] for name in whole.ids])
    assert whole.info.data == read_info(folder / "a").data.digest
    with pytest.raises(UserError, match="both score clip 'test000'; give disjoint folds"):
        merged("a_test", tmp_path / "m.json", out="n")
    assert merged("a_test", "copy_valid").info.data == ""


def test_duplicates_within_a_dataset_keep_its_folds_mergeable(tmp_path):
    """Of 4 clips, one is in the other fold too."""
    rng, contents = np.random.default_rng(0), ("abcd", "aefg")
    parts = []
    for fold, content in enumerate(contents):
        ids, prints = [f"{fold}{c}" for c in content], np.stack([fingerprint(c) for c in content])
        labels = rng.random(4)
        parts.append(write_evaluation(tmp_path / f"{fold}.json", labels[::-1], labels, ids, fingerprints=prints))
    assert len(merge_folds(MergeFoldsConfig(parts, tmp_path / "m.json")).ids) == 8


def test_folds_of_robustness_hold_no_copies_of_each_other(folder, tmp_path):
    for other, why in (("copy", "20 clips of one are in the other"), ("b", "score different clips called 'test000'")):
        config = RobustnessConfig([str(tmp_path / "m")], folds=[folder / "a", folder / other])
        with pytest.raises(UserError, match=why):
            robustness(config)


def test_signals_of_a_gate_are_those_of_the_clips(folder):
    clips = ClipSet.scored(read_evaluation(folder / "a_test_ridge.json"))
    quality, present = member_quality(folder / "a", clips, [["vision"], ["audio", "text"]])
    again, also_present = member_quality(folder / "copy", clips, [["vision"], ["audio", "text"]])
    assert all(np.array_equal(own, other) for own, other in zip(quality, again, strict=True)) and quality[0].any()
    np.testing.assert_array_equal(present, also_present)
    with pytest.raises(UserError, match=r"b: lacks 20 clips of the predictions, such as test000"):
        member_quality(folder / "b", clips, [["vision"]])


def test_ridge_of_a_report_is_fitted_to_other_clips_than_the_scored_ones(folder, tmp_path):
    """A feature dataset with the scored clips among the training clips, under other ids, and evaluations that do not
    say which features they are of."""

    def ridge(features, evaluation="a_test", earlier=False):
        run = tmp_path / f"{features}{evaluation}{earlier}"
        run.mkdir()
        shutil.copytree(folder / features, run / "features")
        members = both(folder, evaluation)
        average = tmp_path / "average.json"
        ensemble(EnsembleConfig(members, average, bootstrap=0))
        if earlier:
            of_earlier_version(average, run / "metrics.json")
        else:
            ensemble(EnsembleConfig(members, run / "metrics.json", bootstrap=0))
        (computed,) = cheap_baselines(Inputs.of([run]))
        return computed

    own = baseline(BaselineConfig(folder / "a", tmp_path / "r.json", kind="ridge", bootstrap=0))
    np.testing.assert_allclose(ridge("a").predictions, own.predictions)
    np.testing.assert_allclose(ridge("copy").predictions, own.predictions)
    a = synthetic_features.samples(COUNTS, views=0)
    twins = [copied(sample, split="train") for sample in a if sample.split == "test"]
    write(folder / "twins", [*a, *twins], synthetic_features.info(views=0))
    np.testing.assert_allclose(ridge("twins").predictions, own.predictions)
    with pytest.raises(NotFound, match="no feature dataset"):
        ridge("b")  # not one clip of it was scored
    write(folder / "part", [sample for sample in a if sample.id != "test003"], synthetic_features.info(views=0))
    with pytest.raises(NotFound, match="lacks clips that were scored"):
        ridge("part")
    with pytest.raises(NotFound, match="not known whether the scored clips are in"):
        ridge("a", earlier=True)


def test_fingerprints_are_kept_in_the_files_and_a_changed_one_is_noticed(folder, tmp_path):
    evaluation = read_evaluation(folder / "b_test_ridge.json")
    own = {clip.id: clip.fingerprints for clip in read_clips(folder / "b")}
    np.testing.assert_array_equal(evaluation.fingerprints, [own[name] for name in evaluation.ids])
    assert evaluation.fingerprints.dtype == np.uint64 and evaluation.info.data == ELSEWHERE.digest
    assert "fingerprints_digest" not in json.loads((folder / "old_b_test_ridge.json").read_text())["clips"]
    for pattern, other in ((r"\b[0-9a-f]{16}\b", "0" * 16), (r" [0-9a-f]{16}\b", ""), (r"\b[0-9a-f]{16}\b", "g" * 16)):
        for path in folder.glob("b_test_ridge*"):
            shutil.copy(path, tmp_path / path.name)
        labels = tmp_path / "b_test_ridge_labels.csv"
        labels.write_text(re.sub(pattern, other, labels.read_text(), count=1))
        with pytest.raises(UserError, match=r"b_test_ridge\.json: .*evaluate again"):
            read_evaluation(tmp_path / "b_test_ridge.json")


def test_tables_of_predictions_with_ids_of_the_clips_that_teach_are_weighted_on_request(folder, tmp_path):
    tables = []
    for kind in KINDS:
        tables.append(tmp_path / f"{kind}.csv")
        shutil.copy(folder / f"b_valid_{kind}_predictions.csv", tables[-1])
        info = read_evaluation(folder / f"b_valid_{kind}.json").info
        about = {"system": info.model, "configuration": info.configuration}
        description = {"label_names": read_info(folder / "b").label_names, "made_from": about}
        (tmp_path / f"{kind}_made_from.json").write_text(json.dumps(description))
    config = EnsembleConfig(tables, tmp_path / "e.csv", method="ridge", fit=both(folder, "a_valid"))
    with pytest.raises(UserError, match=r"24 of its clips are in .*, or others have their ids; .*--allow_unknown"):
        combine_predictions(config)
    combine_predictions(replace(config, allow_unknown_training=True))
    combined = ensemble(EnsembleConfig(both(folder, "b_valid"), tmp_path / "e.json", method="ridge", fit=config.fit))
    np.testing.assert_allclose(read_prediction_table(tmp_path / "e.csv").values, combined.predictions, atol=1e-5)


def test_what_two_sets_share():
    prints = np.stack([fingerprint(name) for name in "wxyz"])
    part = prints[1:3].copy()
    part[:, :2] = 0  # one fingerprint is enough, and 0 is none
    a, other = ClipSet(list("abcd"), prints, "one"), ClipSet(["p", "b"], part, "two")
    assert shared_clips(a, other) == {"b": "p", "c": "b"} and shared_clips(other, a) == {"p": "b", "b": "c"}
    assert shared_clips(a, ClipSet(["b", "q"], part * 0, "two")) is None
    assert shared_clips(a, ClipSet(["b", "q"], None, "one")) == {"b": "b"}
    assert shared_clips(ClipSet(["b", "q"], None, read="r"), ClipSet(["b", "s"], None, read="r")) == {"b": "b"}
    assert shared_clips(ClipSet(["b"]), ClipSet(["b"])) is None


def test_sets_of_clips_are_told_apart_by_content(folder, tmp_path):
    a, b, copy = (read_evaluation(folder / f"{name}_test_ridge.json") for name in ("a", "b", "copy"))
    assert len(group_by_clips([a, b])) == 2 and group_by_clips([a, copy]) is None
    zeros = [tmp_path / f"{i}.json" for i in range(2)]
    for i, path in enumerate(zeros):  # other clips with the same ids, and labels that are mostly equal by chance
        labels = np.zeros((6, 1))
        labels[i] = 1
        prints = np.stack([fingerprint(f"corpus {i}, clip {row}") for row in range(6)])
        write_evaluation(path, np.arange(6) / 6, labels, fingerprints=prints)
    assert len(group_by_clips(list(map(read_evaluation, zeros)))) == 2
