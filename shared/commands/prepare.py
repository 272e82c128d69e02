"""`emit prepare`: media files to a clip dataset. Parallel, resumable, and the same whatever the number of processes.

    emit prepare my_videos/ --out runs/clips
    emit prepare my_videos/ --out runs/clips --shard 3/8     one of eight jobs, on any machine that sees both folders
    emit prepare my_videos/ --out runs/clips --merge         when all eight are done

While it runs, OUT/.partial holds finished parts of SHARD clips; a run that was stopped goes on with the others. The
jobs of an array write other parts of the same, so any number of them gives what one run gives.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from shared import config as configuration
from shared.dataset.clip import Clip, ClipSource
from shared.dataset.clip_dataset import ClipDatasetInfo, ClipSample, decode_row, schema
from shared.dataset.prepare_clip import Verdict, prepare_clip, prepare_windows, prepare_words
from shared.dataset.recipe import Recipe
from shared.dataset.shards import ShardWriter, read_shard, write_shard
from shared.dataset.splits import assign
from shared.dataset.worker_pool import run
from shared.errors import UserError
from shared.files import digest, write_csv
from shared.layouts.registry import read_source
from shared.media.transcribe import NOT_TRANSCRIBED

SHARD = 16
"""Clips that are written, and at worst done again, together."""
VERSION = 6
"""Raised whenever the same recipe gives other rows, so that an older folder is not continued."""


@dataclass(kw_only=True)
class PrepareConfig(Recipe):
    """Turn media files, their words and labels into a clip dataset."""

    source: Path = field()
    """A folder of media files, or a table of them (a .csv, or a folder with a labels.csv)."""
    out: Path = field()
    """Folder of the dataset. An unfinished one is continued."""
    layout: str | None = None
    """How the source is laid out: csv, folder, hf, ravdess or vidmimic2; by default what its files look like."""
    layout_options: dict[str, Any] = field(default_factory=dict)
    """The layout's own options, such as {media: path, labels: [valence, arousal]} for csv, or {crops: precomputed} for
    vidmimic2; each is a field of its class in shared/layouts/."""
    split_by: str | None = None
    """Where the source says nothing of splits, the group that is kept whole when they are drawn; by default the first
    there is."""
    workers: int = 0
    """Processes; 0 means one a core. The dataset does not depend on it."""
    file_timeout: float = 120.0
    """Seconds after which a file is given up."""
    shard: str | None = None
    """I/N: prepare only the I-th of N shares, as one job of an array. Any N gives the same dataset."""
    merge: bool = False
    """Put together what the jobs of an array have prepared; an error names what is missing."""
    transcripts: Path | None = None
    """Folder in which transcripts made by --transcribe are kept, by default OUT.transcripts: sound that was transcribed
    is not transcribed again, whatever --out."""

    def __post_init__(self):
        super().__post_init__()
        if self.shard is not None:
            share, _, count = self.shard.partition("/")
            if not (share.isdigit() and count.isdigit() and 1 <= int(share) <= int(count)):
                raise ValueError(f"shard is {self.shard!r}: write it as I/N, with I from 1 to N")
            if self.merge:
                raise ValueError("shard and merge exclude each other: merge when all shards are done")


def main(argv: list[str] | None = None) -> int:
    """Run `emit prepare`; 0 when the dataset is complete."""
    config = configuration.parse(
        PrepareConfig,
        argv,
        prog="emit prepare",
        example="emit prepare my_videos/ --out runs/clips",
        positional=("source",),
    )
    prepare(config)
    return 0


def prepare(config: PrepareConfig) -> None:
    """Write the clip dataset at `config.out`. UserError when the folder holds something else, or no clip is usable."""
    source = assign(read_source(config.source, config.layout, config.layout_options), config.split_by)
    info = describe(source, config)
    recipe = digest([VERSION, info.recipe.to_json(), config.file_digests()])
    made_from = {"source": _source_digest(source, Path(config.source)), "recipe": recipe}
    writer = ShardWriter(config.out, "dataset.json", "clip dataset", len(source.clips), SHARD)
    stored = ClipDatasetInfo.read(config.out).made_from if writer.is_complete() else None
    if writer.claim(made_from, stored, lambda name, *_: {"recipe": "options", "source": "clips or labels"}[name]):
        print(f"{config.out}: already prepared; nothing to do")
        return
    for note in source.notes:
        print(f"{config.source}: {note}")
    if config.merge:
        _refuse_gaps(writer, source.clips)
    else:
        _prepare_shards(source.clips, config, info, writer)
    if config.shard is None:
        _finish(writer, source, info, made_from)
    else:
        print(f"{config.out}: share {config.shard} is done; when all are, run it with --merge instead")


def prepare_each(
    clips: list[Clip], recipe: Recipe, workers: int = 0, seconds: float = 120.0
) -> Iterator[tuple[Clip, ClipSample | None, str]]:
    """Prepare clips in memory, without writing a dataset. Yields (clip, sample, "") or (clip, None, reason).

    A recording of any length is prepared in windows of `recipe.max_seconds`. Clips come as they finish, the windows of
    one clip in order, followed by a reason if the rest of it cannot be read. Of a clip with a sound file or face crops
    of its own only the first window is read; if there is more, a reason says so. seconds: time limit of each window.
    """
    recipe.file_digests()
    info = describe(ClipSource(clips), recipe)
    job = partial(prepare_windows, recipe=Recipe(**recipe.to_json()))
    begun = set()
    for index, window, reason in run(job, clips, workers, seconds):
        clip = clips[index]
        windows = [window or (0.0, None, reason)]
        if window is None and index not in begun:  # its files ended the process; its words do not
            words, _ = prepare_words(clip, recipe, reason)
            windows = windows if words is None else [(0.0, words, ""), *windows]
        begun.add(index)
        for start, row, why in windows:
            if row is None:
                yield clip, None, why
            else:
                yield clip, decode_row(row, replace(info, group_names=list(clip.groups)), start=start), ""


def describe(source: ClipSource, recipe: Recipe) -> ClipDatasetInfo:
    """The description of a dataset before its clips are prepared."""
    from shared.media.quality import AUDIO_QUALITY, TEXT_QUALITY, VISION_QUALITY

    quality = {"vision": list(VISION_QUALITY), "audio": list(AUDIO_QUALITY), "text": list(TEXT_QUALITY)}
    names = list(source.label_names), list(source.group_names)
    return ClipDatasetInfo(*names, Recipe(**recipe.to_json()), quality)


def _source_digest(source: ClipSource, base: Path) -> str:
    """Changes with anything about the clips, or the size of a file; not with where the source lies."""
    base = (base if base.is_dir() else base.parent).absolute()
    entries = [clip.fingerprint(base) for clip in source.clips]
    return digest([source.label_names, source.group_names, entries])


def _prepare_shards(clips: list[Clip], config: PrepareConfig, info: ClipDatasetInfo, writer: ShardWriter) -> None:
    """Write the shards that are missing, of all or of one share, each when its last clip is done."""
    from tqdm import tqdm

    share, count = (int(part) for part in (config.shard or "1/1").split("/"))
    numbers = range(share - 1, len(writer.shards), count)
    missing = writer.missing(numbers)
    todo, total = [i for number in missing for i in writer.shards[number]], writer.clips_in(numbers)
    for note in writer.progress_notes(numbers, missing):
        print(note)
    kept = None
    if config.transcribe:
        kept = config.transcripts or config.out.with_name(f"{config.out.name}.transcripts")
        try:
            kept.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{kept}: no folder for transcripts ({error.strerror}); choose another") from None
    job = partial(prepare_clip, recipe=Recipe(**config.to_json()), transcripts=kept)
    waiting: dict[int, dict[int, tuple]] = {}
    with tqdm(total=total, initial=total - len(todo), desc="prepare", unit="clip", disable=None) as progress:
        for place, result, reason in run(job, [clips[i] for i in todo], config.workers, config.file_timeout):
            index = todo[place]
            number = index // SHARD
            waiting.setdefault(number, {})[index] = result or prepare_words(clips[index], config, reason)
            if len(waiting[number]) == len(writer.shards[number]):
                done = waiting.pop(number)
                _write_results(writer.path(number), [done[i] for i in writer.shards[number]], info)
            progress.update()


def _refuse_gaps(writer: ShardWriter, clips: list[Clip]) -> None:
    missing = writer.missing(range(len(writer.shards)))
    if missing:
        damaged = writer.clips_in_damaged(missing)
        why = f" (what was prepared of {damaged} is damaged)" if damaged else ""
        first = clips[writer.shards[missing[0]][0]].id
        raise UserError(
            f"{writer.out}: {writer.clips_in(missing)} of {len(clips)} clips are not prepared yet{why}, from {first!r} "
            "on; run the missing shares again, or the command without --merge, which prepares them itself"
        )


def _write_results(path: Path, results: list[tuple[dict | None, Verdict]], info: ClipDatasetInfo) -> None:
    """Write a shard: rows as an Arrow table, verdicts in the metadata of its schema."""
    import pyarrow as pa

    verdicts = json.dumps([asdict(verdict) for _, verdict in results])
    columns = schema(info).with_metadata({"verdicts": verdicts})
    table = pa.Table.from_pylist([row for row, _ in results if row is not None], schema=columns)
    with (
        write_shard(path) as temporary,
        pa.OSFile(str(temporary), "wb") as file,
        pa.ipc.new_file(file, columns) as writer,
    ):
        writer.write_table(table)


def _finish(writer: ShardWriter, source: ClipSource, info: ClipDatasetInfo, made_from: dict[str, str]) -> None:
    """Put the shards together, write the tables and, last, dataset.json."""
    import pyarrow as pa

    from shared.media.quality import CLIP_QUALITY

    out, tables, verdicts = writer.out, [], []
    for number in range(len(writer.shards)):
        table = pa.ipc.open_file(read_shard(writer.path(number))).read_all()
        verdicts += [Verdict(**entry) for entry in json.loads(table.schema.metadata[b"verdicts"])]
        tables.append(table.replace_schema_metadata(None))
    if [verdict.id for verdict in verdicts] != [clip.id for clip in source.clips]:
        raise UserError(f"{writer.folder}: holds other clips than the source, or some of them twice; delete {out}")
    # Words are missed only where other clips have them: a folder of videos without any is complete as it is.
    if any("text" not in verdict.missing for verdict in verdicts):
        for verdict in verdicts:
            if verdict.verdict != "failed" and "text" in verdict.missing:
                verdict.verdict = "partial"

    lost = [verdict for verdict in verdicts if verdict.verdict == "failed"]
    write_csv(out / "failures.csv", ["id", "media", "reason"], [[v.id, v.media, v.detail] for v in lost])
    write_csv(
        out / "verdicts.csv",
        ["id", "verdict", "missing", "detail"],
        [[v.id, v.verdict, " ".join(v.missing), v.detail] for v in verdicts],
    )
    write_csv(out / "quality.csv", ["id", *CLIP_QUALITY], [[v.id, *v.quality] for v in verdicts if v.quality])
    if len(lost) == len(verdicts):
        raise UserError(f"{out}: none of the {len(lost)} clips could be read; the reasons are in failures.csv")

    kept = [verdict for verdict in verdicts if verdict.verdict != "failed"]
    info = info.with_digest((verdict.id, verdict.digest) for verdict in kept)
    info = replace(info, counts=_counts(verdicts, source.clips), made_from=made_from)
    writer.finish(pa.concat_tables(tables), info.digest, info.to_json())
    _summary(out, verdicts, info.digest)


def _counts(verdicts: list[Verdict], clips: list[Clip]) -> dict:
    kept = [(verdict, clip) for verdict, clip in zip(verdicts, clips, strict=True) if verdict.verdict != "failed"]
    splits = sorted({clip.split for _, clip in kept})
    return {
        "clips": len(kept),
        **{word: sum(verdict.verdict == word for verdict in verdicts) for word in ("ok", "partial", "failed")},
        "missing": {name: sum(name in verdict.missing for verdict, _ in kept) for name in ("vision", "audio", "text")},
        "splits": {split: sum(clip.split == split for _, clip in kept) for split in splits},
    }


def _summary(out: Path, verdicts: list[Verdict], digits: str) -> None:
    """The closing lines: how many of each, and the first few that a person should look at."""
    groups = {word: [v for v in verdicts if v.verdict == word] for word in ("ok", "partial", "failed")}
    print(f"{out}: " + ", ".join(f"{len(some)} {word}" for word, some in groups.items()) + f"; digest {digits}")
    for word in ("partial", "failed"):
        for verdict in groups[word][:3]:
            print(f"  {word}: {verdict.id}: {verdict.detail}")
        if len(groups[word]) > 3:
            print(f"  {word}: and {len(groups[word]) - 3} more in {'failures' if word == 'failed' else 'verdicts'}.csv")
    mute = sum(NOT_TRANSCRIBED in verdict.detail for verdict in verdicts)
    if mute:
        print(f"  the sound of {mute} clip{'s' * (mute > 1)} could not be transcribed; verdicts.csv says why")
    longer = sum(verdict.longer for verdict in verdicts)
    if longer:
        print(f"  {longer} {'clip is' if longer == 1 else 'clips are'} longer than max_seconds; the rest is left out")
    equal: dict[str, list[str]] = {}
    for verdict in verdicts:
        equal.setdefault(verdict.content or f"none of {verdict.id}", []).append(verdict.id)
    sets = [ids for ids in equal.values() if len(ids) > 1]
    if sets:
        what = "pair" if all(len(ids) == 2 for ids in sets) else "set"
        some = "; ".join(" = ".join(ids[:3]) + (" = ..." if len(ids) > 3 else "") for ids in sets[:3])
        number = f"1 {what} of clips has" if len(sets) == 1 else f"{len(sets)} {what}s of clips have"
        print(f"  {number} equal content: {some}" + (f" and {len(sets) - 3} more" if len(sets) > 3 else ""))


if __name__ == "__main__":
    from shared.cli import run_main

    run_main(main)
