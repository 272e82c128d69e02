"""Shared by the page, the Gradio API and plain HTTP: limits, uploads, the queue and the scorer."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from shared.errors import UserError
from shared.text import one_line
from stage2_fusion.app.jobs import Job, JobQueue, Progress
from stage2_fusion.app.results import clip_to_json, model_to_json, to_csv
from stage2_fusion.app.scoring import ScoredClip, Scorer
from stage2_fusion.app.transcripts import SentClip, pair_transcripts
from stage2_fusion.app.uploads import Upload, UploadError, UploadStore, megabytes

POLL_SECONDS = 0.1
"""Seconds between two progress checks of a request; its end is reported at once."""


@dataclass(frozen=True)
class Limits:
    """The limits of one request."""

    bytes: int
    """Most bytes of all files of a request together."""
    seconds: float
    """Most seconds of one clip; the rest of a longer one is left out."""
    clips: int
    waiting: int
    """Requests that may wait."""

    def text(self) -> str:
        """One sentence for people."""
        minutes = f"{self.seconds / 60:g} minutes" if self.seconds >= 60 else f"{self.seconds:g} seconds"
        return (
            f"At most {self.clips} clips and {megabytes(self.bytes)} at once; the first {minutes} of each clip are "
            f"scored. At most {self.waiting} requests wait."
        )


class Service:
    """One model behind a queue."""

    def __init__(self, scorer: Scorer, limits: Limits):
        self.scorer, self.limits = scorer, limits
        self.store = UploadStore(limits.bytes)
        self.queue = JobQueue(limits.waiting)
        self.config = scorer.predictor.config

    def model(self) -> dict[str, Any]:
        """The description of the model, and the limits of a request."""
        limits = {
            "max_clips": self.limits.clips,
            "max_bytes": self.limits.bytes,
            "max_seconds": self.limits.seconds,
            "max_waiting": self.limits.waiting,
        }
        return model_to_json(self.config) | {"limits": limits}

    def submit(self, uploads: Sequence[Upload], transcript: str) -> Job:
        """Put a request on the queue; its files are deleted when it is done or refused. uploads: clips, and transcripts
        named after their clips. UploadError for a request that cannot be answered, QueueFull if there is no room."""
        files = list(uploads)
        try:
            clips = clips_of_request(files, transcript, self.limits)
            job = self.queue.submit(lambda job: self.scorer.score(clips, job))
        except BaseException:
            self.store.delete(files)
            raise
        job.future.add_done_callback(lambda _: self.store.delete(files))
        return job

    async def follow(self, job: Job) -> AsyncIterator[Progress]:
        """Yield the progress of a request whenever it changes, until it is done; cancels it if the client leaves."""
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def wake(_: Any) -> None:
            with contextlib.suppress(RuntimeError):  # the server has ended
                loop.call_soon_threadsafe(done.set)

        job.future.add_done_callback(wake)
        try:
            last = None
            while not job.future.done():
                if job.progress != last:
                    last = job.progress
                    yield last
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(done.wait(), POLL_SECONDS)
        finally:
            job.cancel()  # does nothing to a job that is done

    def answer(self, job: Job) -> dict[str, Any]:
        """The answer to a finished request. UploadError if it failed."""
        return {"model": self.model(), "clips": [clip_to_json(clip) for clip in self.clips(job)]}

    def table(self, job: Job) -> str:
        """The same as CSV."""
        return to_csv(self.clips(job), self.config.label_names)

    def clips(self, job: Job) -> list[ScoredClip]:
        """The scored clips of a finished request. UploadError if it failed."""
        if job.future.cancelled():
            raise UploadError("the request was cancelled", 503)
        error = job.future.exception()
        if error is not None:
            reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {one_line(error, 200)}"
            raise UploadError(f"the clips could not be scored ({reason})", 500)
        return job.future.result()

    def close(self) -> None:
        """Cancel all requests, end all processes, delete all files."""
        self.queue.close(0.0)
        with contextlib.suppress(Exception):
            self.scorer.close()
        self.queue.close()
        self.store.close()


def clips_of_request(uploads: Sequence[Upload], transcript: str, limits: Limits) -> list[SentClip]:
    """The clips with their words. UploadError for a request without clips, with too many, or with a transcript that
    matches no clip."""
    clips = pair_transcripts(uploads, transcript)
    if not clips:
        raise UploadError("no clip: send one or more video or audio files")
    if len(clips) > limits.clips:
        raise UploadError(f"{len(clips)} clips: at most {limits.clips} in one request; send them in several", 413)
    return clips
