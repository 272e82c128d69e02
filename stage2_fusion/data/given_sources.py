"""Features that replace encoders in a feature dataset (`emit encode --precomputed`, `--external`)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.dataset.clip_dataset import ClipDataset
from shared.files import digest, write_csv
from shared.layouts.vidmimic2.pickles import FEATURE_FOLDERS, WIDTHS
from shared.terminal.messages import say
from shared.text import counted
from stage2_fusion.data.external.features import ExternalFeatures
from stage2_fusion.data.feature_info import EncoderInfo
from stage2_fusion.data.given import GivenFeatures, GivenSource
from stage2_fusion.data.precomputed import PrecomputedFeatures

if TYPE_CHECKING:
    from stage1_align import AlignedEncoders

LISTING = "external.csv"
"""In the feature dataset: features of other tools that cannot be matched or read, or are left out."""


@dataclass
class GivenSources:
    """The given features; features of another tool replace those that came with the dataset."""

    precomputed: PrecomputedFeatures | None = None
    external: dict[str, ExternalFeatures] = field(default_factory=dict)

    @classmethod
    def read(
        cls,
        clips: ClipDataset,
        precomputed: Path | None,
        external: Mapping[str, str],
        columns: Mapping[str, Sequence[str]],
        made_by: Mapping[str, str],
    ) -> "GivenSources":
        """Read all features and match them with the clips. external: modality to PATH or FORMAT:PATH; columns: modality
        to the names or patterns of the columns to read; made_by: modality to the name of its tool. UserError when no
        clip has any."""
        sources = cls(PrecomputedFeatures(precomputed, clips) if precomputed else None)
        for name, path in external.items():
            sources.external[name] = ExternalFeatures(path, name, clips, columns.get(name, ()), made_by.get(name, ""))
            for line in sources.external[name].lines():
                say(line)
        return sources

    def features(self, encoders: "AlignedEncoders | None") -> GivenFeatures | None:
        """All given features, next to these encoders; None when nothing is given."""
        sources: list[GivenSource] = [self.precomputed] if self.precomputed else []
        sources += self.external.values()
        return GivenFeatures(sources, encoders) if sources else None

    def towers(self, encoders: Path) -> list[str] | None:
        """The modalities left for the encoders in this folder to compute; None: all that they have."""
        from stage1_align.encoders import SavedEncoders

        if self.precomputed:
            return [name for name in ("text",) if name not in self.external]
        if self.external:
            return [name for name in SavedEncoders.read(encoders).towers if name not in self.external]
        return None

    def encoder_info(self, folder: Path | None, encoders: "AlignedEncoders | None") -> EncoderInfo:
        """What computed the features. Files do not tell which network wrote them, so features of the same folders,
        tools, columns and widths count as features of the same encoders. folder: of the encoders."""
        own_digest, config = (encoders.digest, encoders.config) if encoders else (None, {})
        if not (self.precomputed or self.external):
            assert own_digest is not None and folder is not None
            return EncoderInfo(str(folder.resolve()), own_digest, config)
        content: list[Any] = ["provided", WIDTHS, own_digest]  # the old name; a new one would change the digest
        tools = {name: source.tool() for name, source in self.external.items()}
        if tools:
            told = {
                name: [tool.format, tool.columns, tool.signals, self.external[name].width]
                for name, tool in tools.items()
            }
            content = ["external", told, WIDTHS if self.precomputed else None, own_digest]
        return EncoderInfo(
            path=str((folder or self._first_path()).resolve()),
            digest=digest(content),
            config=config,
            precomputed=[name for name in FEATURE_FOLDERS if name not in tools] if self.precomputed else None,
            external=tools or None,
            aligned=own_digest,
        )

    def write_problems(self, folder: Path) -> None:
        """Write tables of what could not be used into the folder of a feature dataset."""
        if self.precomputed:
            rows = [list(pair) for pair in self.precomputed.problems]
            write_csv(folder / "precomputed.csv", ["id", "reason"], rows)
        if self.external:
            rows = [list(each[:4]) for source in self.external.values() for each in source.problems]
            write_csv(folder / LISTING, ["modality", "id", "source", "reason"], rows)

    def closing_lines(self, damaged_views: int) -> list[str]:
        """Lines to print once the features are written."""
        names = [*(FEATURE_FOLDERS if self.precomputed else ()), *self.external]
        lines = []
        if damaged_views and names:
            given = " and ".join(dict.fromkeys(names))
            lines += [
                f"given features ({given}) cannot be damaged like media: a damaged view lacks a modality instead; "
                "`emit fuse --train.feature_damage 0.5` damages the features themselves"
            ]
        if problems := self.precomputed.problems if self.precomputed else []:
            name, reason = problems[0]
            left_out = counted(len(problems), "track")
            lines.append(f"{left_out} left out, listed in precomputed.csv, such as {name}: {reason}")
        return lines

    def _first_path(self) -> Path:
        return self.precomputed.root if self.precomputed else next(iter(self.external.values())).path
