"""Decode the files of one clip: a media file, and a separate sound file or face crops."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from shared.dataset.clip import Clip, StoredMedia
from shared.dataset.recipe import Recipe
from shared.media.containers import open_media
from shared.media.decode import MIN_TAIL_SECONDS, Media, MediaError, decode, decode_windows
from shared.media.headers import read_header
from shared.media.precomputed_crops import frame_times, read_crops
from shared.text import has_words, one_line


@dataclass
class DecodedClip:
    """The decoded files of a clip."""

    media: Media
    cropped: bool = False
    """Whether the frames are already face crops."""
    problems: list[str] = field(default_factory=list)
    """What cannot be read, and problems of the clip's entry in its source."""


def decode_clip(clip: Clip, recipe: Recipe) -> DecodedClip:
    """Decode the first `recipe.max_seconds` of a clip. Files that cannot be read are listed as problems.

    Raises MediaError if no file can be read, or if there are neither files nor words.
    """
    has_files = clip.media is not None or clip.audio is not None or clip.crops is not None
    if not has_files and not has_words(clip.transcript):
        raise MediaError("no words" if clip.words_alone else "neither a file nor words")
    problems: list[str] = []
    times = frame_times(clip.media) if clip.crops is not None and isinstance(clip.media, Path) else None
    # With crops, the media file is read only for its sound. Without sound it is silent, not broken.
    silent = times is not None and isinstance(clip.media, Path) and not _has_sound(clip.media)
    frame_rate = 0.0 if clip.crops is not None else recipe.frame_rate
    media = None if silent else _decode_file(clip, clip.media, frame_rate, recipe, problems)
    sound = _decode_file(clip, clip.audio, 0.0, recipe, problems)
    decoded = media or _empty_media(clip, silent)
    if sound is not None:
        decoded = replace(
            decoded,
            waveform=sound.waveform,
            sample_rate=sound.sample_rate,
            duration=max(decoded.duration, sound.duration),
            damaged_packets=decoded.damaged_packets + sound.damaged_packets,
            more=decoded.more or sound.more,
            remarks=decoded.remarks + sound.remarks,
        )
    if clip.crops is not None:
        audio_file = clip.media if sound is None else clip.audio
        decoded = _with_crops(decoded, clip.crops, times, audio_file, recipe, problems)
    if has_files and not len(decoded.frames) and not len(decoded.waveform):
        raise MediaError("; ".join(problems or ["nothing in the files can be decoded"]))
    return DecodedClip(decoded, clip.crops is not None, [*problems, *clip.problems])


def decode_clip_windows(clip: Clip, recipe: Recipe) -> Iterator[DecodedClip]:
    """Decode all of a clip in windows of `recipe.max_seconds`; only the first window if the clip has a separate sound
    file or face crops.

    Raises MediaError like `decode_clip`, and after the first window if the rest is not read.
    """
    if clip.media is None or clip.audio is not None or clip.crops is not None:
        decoded = decode_clip(clip, recipe)
        yield decoded
        if decoded.media.more:
            raise MediaError("the rest is left out: separate sound files or face crops are read for one window only")
        return
    for media in decode_windows(_content(clip.media), recipe.frame_rate, recipe.max_seconds, recipe.max_side):
        yield DecodedClip(media, False, list(clip.problems))


def undecoded_clip(clip: Clip, reason: str) -> DecodedClip:
    """A clip without frames and sound, because its files cannot be decoded for this reason."""
    return DecodedClip(_empty_media(clip), problems=[reason, *clip.problems])


def _decode_file(
    clip: Clip, file: Path | StoredMedia | None, frame_rate: float, recipe: Recipe, problems: list[str]
) -> Media | None:
    """Decode a file of a clip; None, with a problem, if it cannot be read."""
    if file is None:
        return None
    try:
        return decode(_content(file), frame_rate, recipe.max_seconds, recipe.max_side)
    except MediaError as error:
        is_only_file = clip.audio is None and clip.crops is None
        problems.append(str(error) if is_only_file else f"{file}: {error}")
        return None


def _with_crops(
    media: Media,
    folder: Path,
    times: np.ndarray | None,
    audio_file: Path | StoredMedia | None,
    recipe: Recipe,
    problems: list[str],
) -> Media:
    """The face crops instead of the frames of `media`. times: of the video's frames, (N,), None without a video."""
    duration = media.duration
    if times is None and media.more:  # the crops span all of the sound, not only its decoded part
        header = read_header(audio_file) if isinstance(audio_file, Path) else None
        duration = (header.seconds if header else None) or 0.0
    crops = read_crops(folder, times, duration, recipe.frame_rate, recipe.max_seconds, recipe.frame_size)
    problems += [crops.problem] if crops.problem else []
    return replace(
        media,
        frames=crops.frames,
        frame_times=crops.times,
        absence_reasons={**media.absence_reasons, "vision": "no face crops that can be read"},
        duration=max(media.duration, min(crops.end, recipe.max_seconds)),
        more=media.more or crops.end > recipe.max_seconds + MIN_TAIL_SECONDS,
    )


def _empty_media(clip: Clip, silent: bool = False) -> Media:
    """No frames and no sound, with the reasons. silent: the media file can be read, but has no sound."""
    sound = "no file" if clip.media is clip.audio is None else "its file cannot be read"
    absence_reasons = {
        "vision": "no file" if clip.media is clip.crops is None else "its file cannot be read",
        "audio": "no audio track" if silent else sound,
    }
    empty = np.zeros(0, np.float32)
    return Media(np.zeros((0, 0, 0, 3), np.uint8), empty, empty, 0, 0.0, absence_reasons=absence_reasons)


def _content(source: Path | StoredMedia) -> Path | bytes:
    """The input of `decode`. Raises MediaError if a table cannot be read."""
    if not isinstance(source, StoredMedia):
        return source
    try:
        return source.read()
    except Exception as error:  # pyarrow raises errors of many types for a damaged table
        raise MediaError(one_line(error, 200)) from None


def _has_sound(path: Path) -> bool:
    with open_media(path) as container:
        return bool(container.streams.audio)
