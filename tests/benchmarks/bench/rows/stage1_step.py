"""A training step of stage 1 with all of its batch at once."""

from benchmarks.bench import clip_step
from benchmarks.bench.row import Row

ROW = Row(
    "stage-1 step, CLIP",
    "samples/s",
    lambda bench: clip_step.ours(bench, 0),
    lambda bench: clip_step.open_clip_train(bench, 0),
    "open_clip_train, same weights and batches",
    "its operations at the rate of torch.mm in the same precision",
    clip_step.weights,
)
