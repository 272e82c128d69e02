"""A training step of stage 1 at full size, on a batch in memory."""

from benchmarks.bench import clip_htsat
from benchmarks.bench.row import Row

ROW = Row(
    "stage-1 step, image, sound and text, from memory",
    "samples/s",
    lambda bench: clip_htsat.measure(bench, from_disk=False),
    limit_is="its operations at the rate of torch.mm in the same precision",
    prepare=clip_htsat.clips,
)
