"""The inputs of the sections of a report: each part is found and loaded on first use."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.config import load_yaml
from shared.dataset.clip_dataset import ClipDataset
from shared.errors import UserError
from shared.files import digest
from stage2_fusion.data.feature_info import FeatureInfo, read_info
from stage2_fusion.data.features import FeatureDataset, read_clips
from stage2_fusion.evaluation.result_files import read_evaluation
from stage2_fusion.evaluation.results import Evaluation
from stage2_fusion.evaluation.same_clips import ClipSet, shared_clips
from stage2_fusion.models.model_config import FusionConfig
from stage2_fusion.report.content import NotFound
from stage2_fusion.report.found import Found, find_parts

if TYPE_CHECKING:
    from stage2_fusion.models.base import FusionModel


@dataclass
class Inputs:
    """The parts of the first RUN, which the report describes, and the evaluations of all of them.

    A property raises NotFound when its part is missing; the text of the error says how to get it.
    """

    runs: list[Found]
    problems: list[str] = field(default_factory=list)
    """Files of the runs that could not be read, one line each."""
    clips_shown: int = 3
    """Clips of each kind to show with pictures, sound and words."""
    computed: dict[str, Evaluation] = field(default_factory=dict)
    """Evaluations that sections compute for each other, by name."""

    @classmethod
    def of(cls, paths: Iterable[Path], clips_shown: int = 3) -> "Inputs":
        """The inputs of these RUNs. UserError when one of them is not a RUN."""
        return cls([find_parts(Path(path)) for path in paths], clips_shown=clips_shown)

    @property
    def main(self) -> Found:
        """The RUN that the report describes."""
        return self.runs[0]

    # --- evaluations ---

    @cached_property
    def all_evaluations(self) -> list[Evaluation]:
        """The evaluations of all RUNs that can be read, without copies."""
        found: dict[str, Evaluation] = {}
        for path in dict.fromkeys(path.resolve() for run in self.runs for path in run.evaluations):
            try:
                evaluation = read_evaluation(path)
            except UserError as error:
                self.problems.append(str(error))
                continue
            found.setdefault(digest(evaluation.to_json()), evaluation)
        return list(found.values())

    @cached_property
    def evaluation(self) -> Evaluation:
        """The evaluation that the report describes: of a model, on the test split if there is one."""
        own = {path.resolve() for path in self.main.evaluations}
        candidates = [each for each in self.all_evaluations if each.path in own] or self.all_evaluations
        if not candidates:
            raise NotFound("no evaluation: run `emit evaluate --model MODEL --data FEATURES`")
        return min(candidates, key=lambda each: (each.info.is_baseline, each.info.split != "test"))

    @cached_property
    def baselines(self) -> list[Evaluation]:
        """The evaluations of baselines on the same clips and labels as `evaluation`."""
        digests = self.evaluation.digests
        return [each for each in self.all_evaluations if each.info.is_baseline and each.digests == digests]

    # --- model and data ---

    @cached_property
    def model_path(self) -> Path:
        """The folder of the fusion model."""
        recorded = self._recorded_model()
        return _first(
            [*self.main.models, *_places(recorded, self.main.given)],
            lambda path: (path / "config.json").is_file(),
            "no model folder: give the folder of a stage-2 run",
        )

    @cached_property
    def model_config(self) -> FusionConfig:
        """The config.json of the model, without its weights."""
        return FusionConfig.read(self.model_path)

    @cached_property
    def model(self) -> "FusionModel":
        """The model on the CPU, in evaluation mode."""
        from stage2_fusion.models.base import FusionModel

        return FusionModel.from_pretrained(self.model_path).eval()

    @cached_property
    def features_path(self) -> Path:
        """The folder of the feature dataset that was scored, or that the model was trained on."""
        wanted = self._features_digest()
        recorded = [read_option(run, "data") for run in self._fuse_runs()]
        places = [*self.main.features, *(place for path in recorded for place in _places(path, self.main.given))]

        def fits(path: Path) -> bool:
            if not (path / "features.json").is_file():
                return False
            info = read_info(path)
            return info.digest == wanted if wanted else self._may_be_scored(path, info)

        return _first(places, fits, "no feature dataset: give the folder of the whole run, which holds it")

    @cached_property
    def features_info(self) -> FeatureInfo:
        """features.json."""
        return read_info(self.features_path)

    @cached_property
    def features(self) -> FeatureDataset:
        """All clips and views, sequences of at most 128 steps."""
        return FeatureDataset.open(self.features_path, max_sequence_steps=128)

    @cached_property
    def clips_path(self) -> Path:
        """The folder of the clip dataset."""
        places, wanted = list(self.main.clips), ""
        try:
            data = self.features_info.data
            places += _places(data.path, self.main.given)
            wanted = data.digest
        except (NotFound, UserError):
            places += [p for run in self.main.align_runs for p in _places(read_option(run, "data"), self.main.given)]

        def fits(path: Path) -> bool:
            is_one = (path / "dataset.json").is_file()
            return is_one and (not wanted or ClipDataset.open(path).digest == wanted)

        return _first(places, fits, "no clip dataset: give the folder of the whole run, which holds it")

    @cached_property
    def clips(self) -> ClipDataset:
        """All clips, memory-mapped."""
        return ClipDataset.open(self.clips_path)

    @cached_property
    def truth_path(self) -> Path:
        """truth.csv of the synthetic corpus."""
        if not self.main.truths:
            raise NotFound("no truth.csv: only `emit synth` knows the truth of its clips")
        return self.main.truths[0]

    # --- training ---

    @cached_property
    def fuse_run(self) -> Path:
        """The run folder of stage 2."""
        message = "no stage-2 run: give its folder (--run of `emit fuse`)"
        return _first(self._fuse_runs(), lambda path: (path / "log.jsonl").is_file(), message)

    @cached_property
    def align_run(self) -> Path:
        """The run folder of stage 1."""
        places = list(self.main.align_runs)
        try:
            training = self.features_info.encoders.config.get("training", {})
            places += _places((training.get("config") or {}).get("run"), self.main.given)
        except (NotFound, UserError):
            pass
        message = "no stage-1 run: give the folder of the whole run, or of `emit align` (--run)"
        return _first(places, lambda path: (path / "log.jsonl").is_file(), message)

    @cached_property
    def fuse_log(self) -> list[dict[str, Any]]:
        """The lines of stage 2's log.jsonl."""
        return read_log(self.fuse_run)

    @cached_property
    def align_log(self) -> list[dict[str, Any]]:
        """The lines of stage 1's log.jsonl."""
        return read_log(self.align_run)

    def _fuse_runs(self) -> list[Path]:
        """Candidates for the run folder of stage 2: in the RUN, or around the model."""
        models = [*self.main.models, *_places(self._recorded_model(), self.main.given)]
        return [*self.main.fuse_runs, *(path.parent for path in models)]

    def _recorded_model(self) -> str | None:
        try:
            return self.evaluation.info.made_from.get("model")
        except NotFound:
            return None

    def _may_be_scored(self, features: Path, info: FeatureInfo) -> bool:
        """Whether a feature dataset holds scored clips, as far as known: other clips may have the same ids."""
        try:
            scored = ClipSet.scored(self.evaluation)
        except NotFound:
            return True
        return shared_clips(scored, ClipSet.encoded(read_clips(features), info)) != {}

    def _features_digest(self) -> str:
        """Digest of the features that the evaluation scored, or that the model was trained on; "" if unknown."""
        try:
            return self.evaluation.info.made_from.get("features") or ""
        except NotFound:
            pass
        try:
            return self.model_config.trained_on.features
        except (NotFound, UserError):
            return ""


def read_log(run: Path) -> list[dict[str, Any]]:
    """The readable lines of a log.jsonl; the last line of a killed run may be cut off."""
    lines = []
    for line in (run / "log.jsonl").read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            content = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(content, dict) and isinstance(content.get("step"), int | float):
            lines.append(content)
    return lines


def read_option(run: Path, name: str) -> Any:
    """An option in the config.yaml of a run folder; None without it."""
    try:
        return load_yaml(run / "config.yaml", "").get(name)
    except (OSError, UserError):
        return None


def _places(recorded: Any, given: Path) -> list[Path]:
    """Candidates for a recorded path: unchanged, or beside the RUN, if everything was moved or the path is relative to
    another folder."""
    if not isinstance(recorded, str) or not recorded:
        return []
    path = Path(recorded)
    around = [Path(given).resolve(), *list(Path(given).resolve().parents)[:3]]
    return [path, *(folder.joinpath(*path.parts[-n:]) for folder in around for n in (1, 2) if len(path.parts) >= n)]


def _first(places: Iterable[Path], fits: Callable[[Path], bool], message: str) -> Path:
    """The first path that fits; NotFound with `message` if there is none."""
    for place in dict.fromkeys(places):
        try:
            if fits(place):
                return place
        except (OSError, UserError):
            continue
    raise NotFound(message)
