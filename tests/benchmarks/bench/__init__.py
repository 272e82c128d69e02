"""The rows of `make bench`: one line, one file, one figure. A row needs a `ROW` (row.py) in its file."""

ROWS = (
    "decode",
    "prepare",
    "loader",
    "loss",
    "stage1_step",
    "gradient_cache",
    "encode",
    "stage2_epoch",
    "predict_cold",
    "predict_warm",
    "page",
)
"""In the order of the table."""

GPU_ROWS = ("clip_htsat_memory", "clip_htsat_loader", "largest_batch")
"""Stage 1 at full size, for `--size gpu`, which also has the rows of stage 2 that run on a GPU."""

SIZE_ROWS = {
    "standard": ROWS,
    "gpu": (*GPU_ROWS, "encode", "stage2_epoch"),
    "tiny": (*ROWS, *GPU_ROWS),
}
"""What runs unless rows are named."""
