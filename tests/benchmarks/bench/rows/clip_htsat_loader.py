"""A training step of stage 1 at full size, on batches of the real loader: prepared clips, decoded and augmented."""

from benchmarks.bench import clip_htsat
from benchmarks.bench.row import Row

ROW = Row(
    "stage-1 step, image, sound and text, from disk",
    "samples/s",
    lambda bench: clip_htsat.measure(bench, from_disk=True),
    lambda bench: clip_htsat.measure(bench, from_disk=False),
    "the same on a batch in memory",
    "its operations at the rate of torch.mm in the same precision",
    clip_htsat.clips,
)
