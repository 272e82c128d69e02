"""`write_report`: collect the sections, write the page and the files of its figures."""

import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from shared.errors import UserError
from shared.files import write_bytes, write_text
from shared.text import counted, one_line
from stage2_fusion.report.content import Beside, Block, Figure, Grid, Group, NotFound, Picture, Section
from stage2_fusion.report.figures import for_file, render, style
from stage2_fusion.report.inputs import Inputs
from stage2_fusion.report.page import Page
from stage2_fusion.report.sections import SECTIONS

NAME = re.compile(r"[a-z0-9-]+")


@dataclass(frozen=True)
class Report:
    """What was written."""

    path: Path
    figures: Path
    """Folder of the figures as SVG and PNG."""
    sections: list[Section]

    @property
    def missing(self) -> list[str]:
        """What the report could not show, one line each."""
        return [f"{section.title}: {line}" for section in self.sections for line in section.missing]


def write_report(
    runs: Sequence[str | Path],
    out: str | Path = "report.html",
    figures: str | Path | None = None,
    sections: Iterable[str] | None = None,
    clips_shown: int = 3,
) -> Report:
    """Write a report of runs as one HTML file that needs nothing else.

    runs: folders of runs or models, or JSON files of evaluations; the first is described, all are compared. figures:
    folder for the figures as SVG and PNG, by default OUT_figures. sections: names from `SECTIONS`, or
    "package.module:function"; by default all. clips_shown: clips of each kind (worst, least certain, best) that are
    shown with their pictures, sound and words; 0 shows none. UserError when a run is none of these.
    """
    out = Path(out)
    folder = Path(figures) if figures else out.with_name(f"{out.stem}_figures")
    inputs = Inputs.of(map(Path, runs), clips_shown)
    with style():
        made = [
            section
            for name in (SECTIONS.parts if sections is None else sections)
            if (section := make_section(name, inputs)) is not None
        ]
        if inputs.problems:
            made.append(Section("Files that could not be read", missing=inputs.problems))
    drawn, written = _write_drawings(made, folder)
    _remove_clips(folder, written)
    title = f"EMIT report: {Path(runs[0]).resolve().name}"
    write_text(out, Page(drawn).document(title, _about(inputs), made, f"Written by EMIT {version('emit-toolkit')}."))
    return Report(out, folder, made)


def _remove_clips(folder: Path, written: Sequence[Path]) -> None:
    """Remove the drawings of clips that an earlier report left in its folder of figures: a report without people must
    not have their faces beside it."""
    for path in folder.glob("clip-*"):
        if path not in written and re.fullmatch(r"clip-\d+-(time|scores)\.(svg|png)", path.name):
            path.unlink()


def make_section(name: str, inputs: Inputs) -> Section | None:
    """One section. What it cannot find becomes a line, and so does a bug: the other sections are still useful."""
    maker = SECTIONS.get(name)
    title = name.partition(":")[2].capitalize() or name.capitalize()
    try:
        return maker(inputs)
    except (NotFound, UserError) as reason:
        return Section(title, missing=[str(reason)])
    except Exception as error:
        warnings.warn(f"section {name!r} failed: {type(error).__name__}: {one_line(error, 200)}", stacklevel=2)
        return Section(title, missing=[f"could not be made ({type(error).__name__}: {one_line(error, 160)})"])


def _write_drawings(sections: list[Section], folder: Path) -> tuple[dict[str, str], list[Path]]:
    """Write the files of all figures and pictures: {name of a figure: its SVG}, and the paths."""
    drawn: dict[str, str] = {}
    written: list[Path] = []
    for part in (part for section in sections for part in _drawings(section.blocks)):
        if part.name in drawn or not NAME.fullmatch(part.name):
            raise ValueError(f"the figure {part.name!r} needs a unique name of a to z, digits and hyphens")
        drawn[part.name] = ""
        if isinstance(part, Figure):
            svg, png = render(part.drawing)
            drawn[part.name] = svg
            written += [folder / f"{part.name}.svg", folder / f"{part.name}.png"]
            write_text(written[-2], for_file(svg))
            write_bytes(written[-1], png)
        else:
            written.append(folder / f"{part.name}.{part.kind.replace('jpeg', 'jpg')}")
            write_bytes(written[-1], part.data)
    return drawn, written


def _drawings(blocks: Iterable[Block]) -> Iterator[Figure | Picture]:
    """All figures and pictures among the blocks, at any depth."""
    for block in blocks:
        if isinstance(block, Group):
            yield from _drawings(block.blocks)
        elif isinstance(block, Beside):
            yield from _drawings((block.left, block.right))
        elif isinstance(block, Grid):
            yield from block.figures
        elif isinstance(block, Figure | Picture):
            yield block


def _about(inputs: Inputs) -> str:
    others = sum(bool(run.evaluations) for run in inputs.runs[1:])
    lacking = sum(not run.evaluations and not run.benches for run in inputs.runs[1:])
    more = f", compared with {counted(others, 'other')}" if others else ""
    more += f"; {lacking} more without an evaluation" if lacking else ""
    return f"{inputs.main.given}{more}"
