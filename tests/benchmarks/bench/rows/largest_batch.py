"""The largest global batch that the gradient cache fits: its size is in the note of the measurement."""

from benchmarks.bench import clip_htsat
from benchmarks.bench.row import Row

ROW = Row(
    "stage-1 step at the largest batch by gradient cache",
    "samples/s",
    clip_htsat.search_largest,
    limit_is="operations of a plain step at the rate of torch.mm in the same precision",
)
