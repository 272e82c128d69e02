"""How fast `emit prepare` is on one core, and how much memory a long file takes.

    python tests/benchmarks/prepare_speed.py
    python tests/benchmarks/prepare_speed.py --model runs/demo/fuse/model      and memory of `emit predict`

Media are made on the spot: a drawn face that speaks, 640 x 480 at 25 frames a second, H.264 and AAC; the long files
repeat its packets. Each run is a process of its own on one core, decoding, finding faces and measuring quality as
`emit prepare` does by itself; its seconds include the start of Python, its memory is the peak of its largest process.
Of a long file prepare reads the first 20 s (`--max_seconds`); `emit predict` reads all of it, window after window.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from shared import config as configuration
from shared.cli import emit_command
from shared.synth import face, media, voice
from shared.synth.render import render
from shared.synth.truth import Envelope

SIZE, RATE, AUDIO_RATE = (640, 480), 25.0, 48000


@dataclass
class PrepareSpeedConfig:
    """Measure `emit prepare` on this machine."""

    seconds: float = 10.0
    """Length of a clip."""
    clips: int = 60
    """Clips of the folder that the speed is measured on."""
    minutes: tuple[int, int] = (6, 20)
    """Lengths of the two long files whose memory is compared."""
    model: Path | None = None
    """Model folder of stage 2 to predict the long files with as well."""
    only: Path | None = None
    """Prepare this folder (with --model: predict it) and print what it took, as JSON: what the script starts itself
    with."""


def main(argv: list[str] | None = None) -> int:
    config = configuration.parse(
        PrepareSpeedConfig, argv, prog="prepare_speed.py", example="python tests/benchmarks/prepare_speed.py"
    )
    if config.only:
        print(json.dumps(measure(config.only, config.model)))
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip = film(folder / "clip.mp4", config.seconds)
        (folder / "many").mkdir()
        for index in range(config.clips):
            (folder / "many" / f"{index:03d}.mp4").write_bytes(clip.read_bytes())
        many, total = start(folder / "many"), config.clips * config.seconds
        print(f"{config.clips} clips of {config.seconds:g} s, one core: {many['seconds']:.1f} s, {many['mib']:.0f} MiB")
        print(f"{total / many['seconds']:.1f} times real time; faces in {many['faces']} of {many['clips']} clips")
        for minutes in config.minutes:
            (folder / f"long{minutes}").mkdir()
            repeat(clip, folder / f"long{minutes}" / "long.mp4", round(minutes * 60 / config.seconds))
            long = start(folder / f"long{minutes}")
            print(f"one file of {minutes} min: {long['seconds']:.1f} s, {long['mib']:.0f} MiB")
            if config.model:
                long = start(folder / f"long{minutes}", "--model", str(config.model))
                print(f"  predicted: {long['seconds']:.1f} s, {long['mib']:.0f} MiB, {long['windows']} windows")
    return 0


def film(path: Path, seconds: float) -> Path:
    """A face that comes to a strong expression and goes again, speaking."""
    rng = np.random.default_rng(0)
    person = face.invent_person(rng)
    envelope = Envelope(seconds, 0.1 * seconds, 0.4 * seconds, 0.7 * seconds, 0.2)
    times, intensities = np.arange(int(seconds * RATE)) / RATE, np.full(6, 0.6)  # (T,), (6,)
    moved = envelope.at(times)[:, None] * face.moved_units(intensities, person)  # (T, 12)
    units = face.expression_units(moved, times, person, rng)
    frames = render(person, units, times, SIZE, rng)  # (T, H, W, 3)
    speaker, effect = voice.invent_speaker(rng), intensities @ voice.EFFECT
    sound = voice.speak(speaker, lambda at: envelope.at(at)[:, None] * effect, seconds, AUDIO_RATE, rng)  # (S,)
    media.write_video(path, frames, times, RATE, sound[:, None], AUDIO_RATE)
    return path


def repeat(clip: Path, path: Path, turns: int) -> None:
    """The packets of a clip again and again, not encoded anew."""
    with av.open(str(clip)) as one, av.open(str(path), "w") as many:
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


def start(source: Path, *more: str) -> dict:
    command = [sys.executable, __file__, "--only", str(source), *more]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout.splitlines()[-1])


def measure(source: Path, model: Path | None) -> dict:
    """Prepare or predict a folder on one core: seconds, MiB, and how many clips, clips with a face, or windows."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    out = source.with_name(source.name + ("_predictions.csv" if model else "_clips"))
    command = ["predict", source, "--model", model] if model else ["prepare", source, "--workers", "1"]
    began = time.perf_counter()
    command = emit_command(*command, "--out", out)
    done = subprocess.run(command, capture_output=True, text=True)
    took = {"seconds": time.perf_counter() - began}
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    took["mib"] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    if model:
        return took | {"windows": len(out.with_name(f"{out.stem}_timeline.csv").read_text().splitlines()) - 1}
    verdicts = (out / "verdicts.csv").read_text().splitlines()[1:]
    return took | {"clips": len(verdicts), "faces": sum("no face" not in line for line in verdicts)}


if __name__ == "__main__":
    sys.exit(main())
