"""The contact sheet of a clip dataset: a page of about a hundred clips as the encoders will see them, worst first.

It is a single self-contained HTML file: ids can be searched and copied, in any script and at any width. The page has
the same size for any dataset: it shows the worst clips of each kind of problem, and some others for comparison. It
depends only on the rows, not on how they were prepared.
"""

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

import numpy as np

from shared.dataset.verdicts import Verdict
from shared.files import write_text
from shared.media.quality import CLIP_QUALITY, VISION_QUALITY
from shared.text import counted

if TYPE_CHECKING:
    import pyarrow as pa

NAME = "contact_sheet.html"
CLIPS = 100
"""Clips on a page."""
CROPS = 4
"""Crops of a clip, evenly spread over it."""
CROP_SIDE = 112
"""Most pixels along a crop's side; larger crops are downscaled."""
STEADY = 0.9
"""Least share of frames with a face for a face that counts as tracked."""
LONGEST = 400
"""Most characters of an id or a remark."""


@dataclass(frozen=True, eq=False)
class SheetClip:
    """A clip on the sheet."""

    verdict: Verdict
    row: int | None
    """Its row in the table; None for a clip that could not be prepared."""

    def signal(self, name: str) -> float | None:
        """A column of CLIP_QUALITY."""
        quality = self.verdict.quality
        return quality[CLIP_QUALITY.index(name)] if quality else None


@dataclass
class Section:
    """Clips with one kind of problem, worst first."""

    title: str
    note: str
    clips: list[SheetClip]
    is_problem: bool = False
    shown: list[SheetClip] = field(default_factory=list)


def write_contact_sheet(out: Path, digest: str, verdicts: Sequence[Verdict], table: "pa.Table") -> Path:
    """Write OUT/contact_sheet.html, atomically. Returns its path.

    digest: of the dataset; verdicts: of all clips; table: the rows of prepared clips in the same order. Only the
    columns `frames` and `vision_quality` of the clips on the sheet are read.
    """
    prepared = iter(range(len(table)))
    clips = [SheetClip(verdict, None if verdict.verdict == "failed" else next(prepared)) for verdict in verdicts]
    path = out / NAME
    write_text(path, _page(digest, clips, choose(clips), table))
    return path


# --- which clips -----------------------------------------------------------------------------------------------------


def choose(clips: Sequence[SheetClip], count: int = CLIPS) -> list[Section]:
    """The sections of a page of `count` clips. Each clip is listed under its most severe problem; the places on the
    page are shared evenly between the problems."""
    has_pictures = any(clip.row is not None and "vision" not in clip.verdict.missing for clip in clips)
    rest = list(clips)

    def take(title: str, note: str, belongs: Callable[[SheetClip], bool], rank: str | None = None) -> Section:
        nonlocal rest
        chosen = [clip for clip in rest if belongs(clip)]
        rest = [clip for clip in rest if not belongs(clip)]
        return Section(title, note, _sorted(chosen, rank) if rank else chosen, is_problem=True)

    sections = [take("Not prepared", "No modality can be read.", lambda clip: clip.row is None)]
    if has_pictures:
        sections += [
            take("No picture", "Sound and words only.", lambda clip: "vision" in clip.verdict.missing),
            take(
                "No face found",
                "The vision encoder gets the center of the picture instead.",
                lambda clip: clip.signal("face_found") == 0,
            ),
            take(
                "Face lost",
                f"A face in fewer than {STEADY:.0%} of the frames; in the others its position is interpolated.",
                lambda clip: (clip.signal("face_found") or 0) < STEADY,
                "face_found",
            ),
        ]
    partial = "Without sound or words, or damaged; the remark says what."
    sections.append(take("Incomplete", partial, lambda clip: clip.verdict.verdict == "partial"))
    if len(clips) > count:
        sections += _ranked(rest, has_pictures, count)
    else:
        order, note = ("sharpness", "The least sharp first.") if has_pictures else ("speech", "Least speech first.")
        sections.append(Section("Without a problem", note, _sorted(rest, order)))
    _share_places(sections, count)
    return [section for section in sections if section.shown]


def _ranked(rest: list[SheetClip], has_pictures: bool, count: int) -> list[Section]:
    """The extremes among the clips without a problem, and an even sample of the remaining ones."""
    kinds = [("Least sharp", "sharpness"), ("Darkest", "brightness")] if has_pictures else []
    sections = []
    for title, signal in [*kinds, ("Least speech", "speech")]:
        chosen = _sorted(rest, signal)[: count // 8]
        taken = set(chosen)
        rest = [clip for clip in rest if clip not in taken]
        sections.append(Section(title, "Of the clips without a problem.", chosen))
    places = np.unique(np.linspace(0, len(rest) - 1, min(len(rest), count)).round().astype(int))
    even = [rest[i] for i in places]
    return [*sections, Section("For comparison", "Drawn evenly from the remaining clips.", even)]


def _sorted(clips: Sequence[SheetClip], signal: str) -> list[SheetClip]:
    """Sorted by a quality signal, lowest first; clips that lack it come last."""
    values = [(value is None, value or 0.0, i) for i, value in enumerate(clip.signal(signal) for clip in clips)]
    return [clips[i] for _, _, i in sorted(values)]


def _share_places(sections: list[Section], count: int) -> None:
    """Fill `shown` of each section: an equal number of clips, or all if there are fewer."""
    left = count
    for done, section in enumerate(sorted(sections, key=lambda section: len(section.clips))):
        places = min(len(section.clips), left // (len(sections) - done))
        if section.title == "For comparison":  # drawn evenly: so is every part of them
            chosen = np.unique(np.linspace(0, len(section.clips) - 1, places).round().astype(int))
            section.shown = [section.clips[i] for i in chosen]
        else:
            section.shown = section.clips[:places]
        left -= places


# --- the page --------------------------------------------------------------------------------------------------------


def _page(digest: str, clips: Sequence[SheetClip], sections: list[Section], table: "pa.Table") -> str:
    shown, prepared = sum(len(section.shown) for section in sections), [clip for clip in clips if clip.row is not None]
    pictures = sum("vision" not in clip.verdict.missing for clip in prepared)
    which = (
        "All clips" if shown == len(clips) else f"{shown} of {counted(len(clips), 'clip')}, those with problems first"
    )
    problems = [f"{section.title}: {len(section.clips):,}" for section in sections if section.is_problem]
    lines = [f"{which}. {', '.join(problems) or 'No problem'}."]
    if prepared and not pictures:
        lines.append("This dataset has no pictures, so the cards describe sound and words.")
    elif pictures:
        lines.append(
            "Crops are the vision encoder's input, "
            f"{CROPS} evenly over each clip; a dashed red border: no face was found in that frame. Face: share of the "
            "frames with one; speech: mean probability of speech; sharpness, brightness: from 0 to 1."
        )
    body = "".join(f"<p>{escape(line)}</p>" for line in lines)
    for section in sections:
        more = section.is_problem and len(section.shown) < len(section.clips)
        part = f"{len(section.shown)} of {len(section.clips):,} shown" if more else len(section.shown)
        body += (
            f"<h2>{escape(section.title)} <small>{part}</small></h2><p class=note>{escape(section.note)}</p>"
            f"<div class=sheet>{''.join(_card(clip, table) for clip in section.shown)}</div>"
        )
    return PAGE.substitute(digest=escape(digest), body=body)


def _card(clip: SheetClip, table: "pa.Table") -> str:
    verdict = clip.verdict
    crops = "" if clip.row is None else _crops(clip.row, table)
    badge = f"<b class={verdict.verdict}>{verdict.verdict}</b>"
    detail = f"<p>{escape(_short(verdict.detail))}</p>" if verdict.detail else ""
    name = f"{badge}<bdi>{escape(_short(verdict.id))}</bdi>"
    return f"<figure>{crops}<figcaption>{name}{_values(clip)}{detail}</figcaption></figure>"


def _values(clip: SheetClip) -> str:
    """The signals of a clip for a person to judge it by."""
    kinds = [
        ("face_found", "face", "{:.0%}"),
        ("sharpness", "sharpness", "{:.2f}"),
        ("brightness", "brightness", "{:.2f}"),
        ("speech", "speech", "{:.0%}"),
        ("words", "words", "{:.0f}"),
        ("seconds", "length", "{:.1f} s"),
    ]
    known = [(label, form.format(value)) for name, label, form in kinds if (value := clip.signal(name)) is not None]
    return f"<dl>{''.join(f'<div><dt>{label}<dd>{value}</div>' for label, value in known)}</dl>" if known else ""


def _crops(row: int, table: "pa.Table") -> str:
    frames, stored = table["frames"][row], table["vision_quality"][row].as_py()
    if not len(frames):
        return "<div class=crops><i>no picture</i></div>"
    faces = np.frombuffer(stored, "<f4").reshape(len(frames), -1)[:, VISION_QUALITY.index("face_found")]  # (T,)
    times = np.unique(np.linspace(0, len(frames) - 1, CROPS).round().astype(int))
    return f"<div class=crops>{''.join(_image(frames[int(i)].as_py(), faces[i] > 0.5) for i in times)}</div>"


def _image(jpeg: bytes, has_face: bool) -> str:
    from PIL import Image

    with Image.open(io.BytesIO(jpeg)) as image:
        if max(image.size) > CROP_SIDE:
            small = io.BytesIO()
            image.resize((CROP_SIDE, CROP_SIDE), Image.Resampling.LANCZOS).save(small, "JPEG", quality=85)
            jpeg = small.getvalue()
    alt, kind = ("face", "") if has_face else ("no face", " class=lost")
    return f'<img{kind} alt="{alt}" src="data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}">'


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


PAGE = Template("""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>Contact sheet</title>
<style>
:root { color-scheme: light dark; --ink: light-dark(#1b1f24, #e3e6ea); --faint: light-dark(#5b6470, #9aa4b0);
  --page: light-dark(#fff, #15181c); --card: light-dark(#f4f5f7, #1f242a); --bad: light-dark(#b3261e, #ff8a80);
  --warn: light-dark(#8a5300, #f0b35a); --good: light-dark(#1f6f3d, #7fd39c); }
body { font: 15px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--page); margin: 2rem auto;
  max-width: 92rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; overflow-wrap: anywhere; } h2 { font-size: 1.1rem; margin: 2rem 0 0; }
h1 small { font-size: 1rem; } small, .note, figcaption p, dt { color: var(--faint); font-weight: normal; }
p { margin: .3rem 0; max-width: 46rem; }
.sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 17rem), 1fr)); gap: .75rem;
  margin-top: .75rem; }
figure { margin: 0; background: var(--card); border-radius: 6px; padding: .6rem; break-inside: avoid; }
.crops { display: grid; grid-template-columns: repeat(4, 1fr); gap: 4px; margin-bottom: .4rem; }
.crops i { grid-column: 1 / -1; color: var(--faint); }
img { width: 100%; aspect-ratio: 1; border-radius: 3px; display: block; box-sizing: border-box; }
img.lost { border: 2px dashed var(--bad); }
figcaption { font-size: .82rem; } bdi { font-weight: 600; overflow-wrap: anywhere; }
b { float: right; font-weight: 600; margin-left: .5rem; } b.ok { color: var(--good); } b.partial { color: var(--warn); }
b.failed { color: var(--bad); } figcaption p { overflow-wrap: anywhere; margin: .3rem 0 0; }
dl { display: flex; flex-wrap: wrap; gap: .1rem .8rem; margin: .25rem 0 0; }
dl div { display: flex; gap: .3rem; } dd { margin: 0; font-variant-numeric: tabular-nums; }
@media print { body { margin: 0; } figure { border: 1px solid #ccc; } }
</style>
<h1>Contact sheet <small>of clip dataset $digest</small></h1>
$body
</html>
""")
