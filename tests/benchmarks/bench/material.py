"""What rows read: a film, a folder of copies of it, the clip dataset made of that, encoders and a model. Each is made
once, in the folder of the run."""

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import yaml
from benchmarks.bench.row import Bench

from shared.errors import UserError
from shared.synth import face, media, voice
from shared.synth.render import render
from shared.synth.truth import Envelope

PICTURE, RATE, AUDIO_RATE = (640, 480), 25.0, 48000
WORDS = """\
a the one two small big old young red blue wooden dark bright quiet man woman child girl boy dog cat bird horse car
street house river beach table window garden kitchen crowd stage smiles laughs speaks sings runs sits holds watches
waits cries shouts whispers slowly loudly again under over beside behind near with and while after before its their
angry happy surprised afraid voice camera morning evening music rain snow sun grass door chair book guitar"""


def film(bench: Bench) -> Path:
    """A drawn face that comes to a strong expression and goes again, speaking: 640 x 480 at 25 frames a second, H.264
    and AAC."""
    return _once(bench.folder / "film.mp4", lambda path: draw(path, bench.size.clip_seconds))


def folder_of_films(bench: Bench) -> Path:
    """Copies of the film, each with words of its own beside it."""

    def copy(folder: Path) -> None:
        folder.mkdir()
        for index in range(bench.size.clips):
            shutil.copy(film(bench), folder / f"{index:04d}.mp4")
            (folder / f"{index:04d}.txt").write_text(caption(index))

    return _once(bench.folder / "films", copy)


def caption(number: int) -> str:
    """Ten to twenty words."""
    rng = np.random.default_rng(number)
    return " ".join(rng.choice(WORDS.split(), rng.integers(10, 21)))


def clip_dataset(bench: Bench, frame_size: int = 96, sample_rate: int = 16000) -> Path:
    """What `emit prepare` makes of the folder."""

    def prepare(out: Path) -> None:
        emit("shared.commands.prepare", folder_of_films(bench), "--out", out, "--workers", bench.threads,
             "--frame_size", frame_size, "--sample_rates", f"[{sample_rate}]")  # fmt: skip

    return _once(bench.folder / f"clips_{frame_size}_{sample_rate}", prepare, complete="dataset.json")


def settings(bench: Bench) -> Path:
    """A configuration of stage 1 with the towers of this size."""
    from helpers.stage1_tiny import TOWERS

    if bench.size.towers:
        from shared.config import find_config

        return find_config(bench.size.towers, "stage1_align")
    path = bench.folder / "align.yaml"
    path.write_text(yaml.safe_dump({"towers": {**TOWERS, "embed_dim": 8}, "pairs": {"frames": 2}}))
    return path


def encoders(bench: Bench) -> Path:
    """Untrained encoders."""
    from shared import config as configuration
    from stage1_align.config import AlignConfig
    from stage1_align.data.pairs import PairData
    from stage1_align.setup import build_encoders

    def build(folder: Path) -> None:
        config = configuration.load(AlignConfig, settings(bench), ["--run", str(folder), *pair_options(bench)])
        data = PairData(config.pairs, 2, 0, clip_dataset(bench))
        build_encoders(config, data).save_pretrained(folder, {"data": "nothing"})

    return _once(bench.folder / "encoders", build)


def pair_options(bench: Bench) -> list[str]:
    """The clips have words, but neither labels nor groups."""
    return ["--data", str(clip_dataset(bench)), "--pairs.batch_by", "", "--pairs.captions", "[transcript]"]


def model(bench: Bench) -> Path:
    """The folder of an untrained fusion model on these encoders."""
    from helpers.serving import write_served_model
    from helpers.synthetic_features import SMALL

    options = {} if bench.size.towers else SMALL["dual_stage"]
    made = _once(bench.folder / "served", lambda folder: write_served_model(folder, encoders(bench), options))
    return made / "model"


def emit(command: str, *words: object) -> None:
    """Run a command in this process; UserError when it fails."""
    import importlib

    if importlib.import_module(command).main([str(word) for word in words]):
        raise UserError(f"{command} failed")


def draw(path: Path, seconds: float, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    person = face.invent_person(rng)
    envelope = Envelope(seconds, 0.1 * seconds, 0.4 * seconds, 0.7 * seconds, 0.2)
    times, intensities = np.arange(int(seconds * RATE)) / RATE, np.full(6, 0.6)  # (T,), (6,)
    moved = envelope.at(times)[:, None] * face.moved_units(intensities, person)  # (T, 12)
    units = face.expression_units(moved, times, person, rng)
    frames = render(person, units, times, PICTURE, rng)  # (T, H, W, 3)
    speaker, effect = voice.invent_speaker(rng), intensities @ voice.EFFECT
    sound = voice.speak(speaker, lambda at: envelope.at(at)[:, None] * effect, seconds, AUDIO_RATE, rng)  # (S,)
    media.write_video(path, frames, times, RATE, sound[:, None], AUDIO_RATE, suffix=".mp4")


def repeat(clip: Path, path: Path, turns: int) -> None:
    """The packets of a clip again and again, not encoded anew."""
    with av.open(str(clip)) as one, av.open(str(path), "w", format="mp4") as many:
        streams = {stream.index: many.add_stream_from_template(stream) for stream in one.streams}
        length = one.duration / av.time_base
        for turn in range(turns):
            one.seek(0)
            for packet in one.demux():
                if packet.dts is not None:
                    shift = round(turn * length / packet.time_base)
                    packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                    packet.stream = streams[packet.stream.index]
                    many.mux(packet)


def _once(path: Path, make: Callable[[Path], object], complete: str = "") -> Path:
    """The path, made if it is missing; what an interrupted run left is made again."""
    if not (path / complete if complete else path).exists():
        partial = path.with_name(f"{path.name}.partial")
        if partial.is_dir():
            shutil.rmtree(partial)
        with contextlib.suppress(FileNotFoundError):
            partial.unlink()
        make(partial)
        partial.rename(path)
    return path
