"""Prepare all clips of a source: in parallel, resumable, and with the same result for any number of processes.

During a run, OUT/.partial contains finished shards of SHARD_SIZE clips (see shards.py); a stopped run continues with
the others. The jobs of an array write different shards of the same dataset.
"""

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from shared.dataset.clip import Clip, ClipSource
from shared.dataset.clip_dataset import ClipDatasetInfo, ClipSample, decode_row, schema
from shared.dataset.contact_sheet import write_contact_sheet
from shared.dataset.label_scale import LabelOptions, scale_labels
from shared.dataset.prepare_clip import PreparedWindow, Row, prepare_clip, prepare_from_transcript, prepare_windows
from shared.dataset.recipe import Recipe
from shared.dataset.shards import ShardWriter, read_shard, write_shard
from shared.dataset.transcripts import Words, inspect_transcripts
from shared.dataset.verdicts import (
    Verdict,
    count_clips,
    note_unknown_words,
    require_transcripts,
    summary,
    write_tables,
)
from shared.dataset.worker_pool import WorkerPool, cores, run_jobs
from shared.errors import UserError
from shared.files import digest
from shared.layouts.used import UsedLayout
from shared.media.quality import AUDIO_QUALITY, TEXT_QUALITY, VISION_QUALITY
from shared.saved.checksum import CLIPS
from shared.terminal.messages import say
from shared.terminal.progress import progress
from shared.terminal.results import result
from shared.text import counted

SHARD_SIZE = 16
"""Clips per shard: an interruption loses at most this number."""
VERSION = 7
"""Incremented when the same recipe gives different rows, so that an older folder is not continued."""


def prepare_dataset(
    source: ClipSource,
    source_path: Path,
    out: Path,
    recipe: Recipe,
    *,
    workers: int = 0,
    file_timeout: float = 120.0,
    share: tuple[int, int] | None = None,
    merge: bool = False,
    transcripts: Path | None = None,
    layout: UsedLayout | None = None,
) -> None:
    """Write the clip dataset of `source` to `out`, or resume it. Print notes and a summary.

    workers: processes, 0 = one per core; file_timeout: most seconds to spend on a file; share: (I, N), write only the
    I-th of N shares of the shards, counted from 0; merge: only finish the dataset, from a complete set of shards;
    transcripts: folder that caches transcripts made here, by default OUT.transcripts; layout: how the source was read,
    which the dataset stores.

    Raises UserError if another process is writing the dataset, if labels lie outside [0, 1] because `scale_labels` was
    not applied, if the folder holds anything else, or if no clip can be used.
    """
    source = scale_labels(source, LabelOptions(), str(source_path)) if source.label_ranges is None else source
    info = describe(source, recipe)
    made_from = {
        "source": _source_digest(source, source_path),
        "recipe": digest([VERSION, info.recipe.to_json(), recipe.file_digests()]),
    }
    writer = ShardWriter(out, CLIPS, len(source.clips), SHARD_SIZE)
    stored = ClipDatasetInfo.read(out).made_from if writer.is_complete() else None
    for note in source.notes:  # even if the dataset is complete: they name the rows it lacks
        say(f"{source_path}: {note}")
    if writer.claim(made_from, stored, lambda name, *_: {"recipe": "options", "source": "clips or labels"}[name]):
        result(f"{out}: already prepared; nothing to do", ClipDatasetInfo.read(out).to_json())
        return
    if line := _words_line(source, recipe):
        print(f"{source_path}: {line}")
    with writer.locked(share):
        if merge:
            _refuse_gaps(writer, source.clips)
        else:
            if recipe.transcribe:
                transcripts = _make_folder(transcripts or out.with_name(f"{out.name}.transcripts"))
            numbers = range(len(writer.shards)) if share is None else range(share[0], len(writer.shards), share[1])
            job = partial(prepare_clip, recipe=info.recipe, transcripts=transcripts if recipe.transcribe else None)
            _prepare_shards(source.clips, writer, numbers, info, job, workers, file_timeout)
        if share is None:
            described = replace(info, made_from=made_from, synthetic=_is_synthetic(source_path), layout=layout)
            _finish(writer, source, described)
        else:
            shown = f"{share[0] + 1}/{share[1]}"
            say(f"{out}: share {shown} is done; when all are, run it with --merge instead")


def _words_line(source: ClipSource, recipe: Recipe) -> str:
    """A line if there is nothing to transcribe, or no words at all; "" otherwise."""
    without = sum(clip.transcript is None for clip in source.clips)
    if recipe.transcribe and not without:
        return "note: nothing to transcribe: every clip has a transcript; --transcribe is not needed"
    if not recipe.transcribe and without == len(source.clips):
        return "note: no clip has words; give a column of transcripts, or --transcribe WHISPER_FOLDER"
    return ""


def prepare_each(
    clips: list[Clip],
    recipe: Recipe,
    workers: int = 0,
    seconds: float = 120.0,
    begun: "ClipReader | None" = None,
) -> Iterator[tuple[Clip, ClipSample | None, str]]:
    """Prepare clips in memory, without writing a dataset. Yields (clip, sample, "") or (clip, None, reason).

    A recording of any length is prepared in windows of `recipe.max_seconds`. Clips arrive as they finish, the windows
    of one clip in order, followed by a reason if the rest of it cannot be read. For a clip with a separate sound file
    or face crops, only the first window is read; if there is more, a reason says so. seconds: time limit of each
    window. begun: a reader that has started on these clips; its results are used if it has the same recipe.
    """
    if begun is not None and begun.recipe != recipe:
        begun.close()
        begun = None
    with closing(begun or ClipReader(recipe, min(workers or cores(), len(clips)), seconds)) as reader:
        yield from reader.read(clips)


class ClipReader:
    """Prepares clips in memory, in processes that stay alive for further clips: for servers."""

    def __init__(
        self,
        recipe: Recipe,
        workers: int = 0,
        seconds: float = 120.0,
        *,
        max_seconds: float | None = None,
    ) -> None:
        """As `prepare_each`. max_seconds: most seconds of a clip; the rest is left out, with a reason."""
        recipe.file_digests()
        self.recipe = recipe
        job = partial(prepare_windows, recipe=describe(ClipSource([]), recipe).recipe, max_seconds=max_seconds)
        self._pool = WorkerPool(job, workers, seconds)

    def begin(self, clips: list[Clip]) -> None:
        """Start on the first of the clips that `read` will be called with."""
        self._pool.begin(clips)

    def read(self, clips: list[Clip]) -> Iterator[tuple[Clip, ClipSample | None, str]]:
        """As `prepare_each`."""
        info = describe(ClipSource(clips), self.recipe)
        started = set()
        for index, window, error in self._pool.run(clips):
            clip = clips[index]
            windows = [window or PreparedWindow(0.0, None, error)]
            if window is None and index not in started:  # its files crashed the process; the transcript can be used
                row, _ = prepare_from_transcript(clip, self.recipe, error)
                windows = windows if row is None else [PreparedWindow(0.0, row, ""), *windows]
            started.add(index)
            for start, row, reason, remarks in windows:
                if row is None:
                    yield clip, None, reason
                else:
                    own_info = replace(info, group_names=list(clip.groups))
                    yield clip, decode_row(row, own_info, start=start, remarks=remarks), ""

    def close(self) -> None:
        """End the processes."""
        self._pool.close()


def describe(source: ClipSource, recipe: Recipe) -> ClipDatasetInfo:
    """The description of a dataset before its clips are prepared."""
    quality = {"vision": list(VISION_QUALITY), "audio": list(AUDIO_QUALITY), "text": list(TEXT_QUALITY)}
    names = list(source.label_names), list(source.group_names)
    return ClipDatasetInfo(*names, Recipe(**recipe.to_json()), quality, label_ranges=source.label_ranges or None)


def _is_synthetic(path: Path) -> bool:
    """Whether a source is a corpus of `emit synth`, or inside one."""
    folder = path if path.is_dir() else path.parent
    return any((place / "corpus.json").is_file() for place in (folder, folder.parent))


def _source_digest(source: ClipSource, path: Path) -> str:
    """Changes with anything about the clips or with the size of a file, but not with the location of the source."""
    base = (path if path.is_dir() else path.parent).absolute()
    entries = [clip.fingerprint(base) for clip in source.clips]
    parts = [[row.row, row.media, row.reason] for row in source.left_out], source.label_ranges
    return digest([source.label_names, source.group_names, entries, *(part for part in parts if part)])


def _make_folder(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: no folder for transcripts ({error.strerror}); choose another") from None
    return folder


def _prepare_shards(
    clips: list[Clip],
    writer: ShardWriter,
    numbers: range,
    info: ClipDatasetInfo,
    job: partial,
    workers: int,
    file_timeout: float,
) -> None:
    """Write the missing ones of the shards `numbers`, each as soon as its last clip is prepared."""
    missing = writer.missing(numbers)
    for note in writer.progress_notes(numbers, missing):
        say(note)
    todo, total = [i for number in missing for i in writer.shards[number]], writer.clips_in(numbers)
    unfinished: dict[int, dict[int, tuple[Row | None, Verdict]]] = {}
    with progress("prepare", total, "clips", done=total - len(todo)) as bar:
        for place, result, error in run_jobs(job, [clips[i] for i in todo], workers, file_timeout):
            index = todo[place]
            number = index // SHARD_SIZE
            results = unfinished.setdefault(number, {})
            results[index] = result or prepare_from_transcript(clips[index], info.recipe, error)
            if len(results) == len(writer.shards[number]):
                del unfinished[number]
                _write_results(writer.path(number), [results[i] for i in writer.shards[number]], info)
            bar.update()


def _refuse_gaps(writer: ShardWriter, clips: list[Clip]) -> None:
    """Raise UserError if a shard is missing."""
    missing = writer.missing(range(len(writer.shards)))
    if missing:
        damaged = writer.clips_in_damaged(missing)
        why = f" (what was prepared of {damaged} is damaged)" if damaged else ""
        first = clips[writer.shards[missing[0]][0]].id
        raise UserError(
            f"{writer.out}: {writer.clips_in(missing)} of {counted(len(clips), 'clip', 'is', 'are')} not "
            f"prepared yet{why}, from {first!r} "
            "on; run the missing shares again, or run the command without --merge to prepare them"
        )


def _write_results(path: Path, results: list[tuple[Row | None, Verdict]], info: ClipDatasetInfo) -> None:
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


def _finish(writer: ShardWriter, source: ClipSource, described: ClipDatasetInfo) -> None:
    """Gather the shards, write the tables and, last, dataset.json."""
    import pyarrow as pa

    out, tables, verdicts = writer.out, [], []
    for number in range(len(writer.shards)):
        table = pa.ipc.open_file(read_shard(writer.path(number))).read_all()
        verdicts += [Verdict(**entry) for entry in json.loads(table.schema.metadata[b"verdicts"])]
        tables.append(table.replace_schema_metadata(None))
    if [verdict.id for verdict in verdicts] != [clip.id for clip in source.clips]:
        raise UserError(f"{writer.folder}: does not hold the clips of the source exactly once; delete {out}")
    table = pa.concat_tables(tables)
    stored = dict(zip(table["id"].to_pylist(), table["transcript"].to_pylist(), strict=True))
    report = inspect_transcripts(
        Words(clip.id, clip.split, stored[clip.id] or clip.transcript or "")
        for clip in source.clips
        if clip.id in stored
    )
    require_transcripts(verdicts)
    note_unknown_words(verdicts, report.unknown)
    write_tables(out, verdicts, source.left_out)
    kept = [verdict for verdict in verdicts if verdict.verdict != "failed"]
    if not kept:
        raise UserError(
            f"{out}: none of {counted(len(verdicts), 'clip')} could be read; the reasons are in failures.csv"
        )
    content = replace(described, made_from={}, synthetic=False).with_digest((v.id, v.digest) for v in kept)
    info = replace(described, digest=content.digest, counts=count_clips(verdicts, source.clips))
    sheet = write_contact_sheet(out, info.digest, verdicts, table)
    writer.finish(table, info.digest, info.to_json())
    lines = [summary(out, verdicts, info.digest, source.left_out), *(f"  {note}" for note in report.notes())]
    if not info.is_texts_alone:
        lines.append(f"  look at {sheet}: face crops, the worst clips first")
    result("\n".join(lines), info.to_json())
