"""A training step of stage 1 through the gradient cache."""

from benchmarks.bench import clip_step
from benchmarks.bench.row import Row

ROW = Row(
    "stage-1 step by gradient cache",
    "samples/s",
    lambda bench: clip_step.ours(bench, bench.size.chunk),
    lambda bench: clip_step.open_clip_train(bench, bench.size.chunk),
    "open_clip_train --accum-freq, same weights and batches",
    "operations of a plain step at the rate of torch.mm in the same precision",
    clip_step.weights,
)
