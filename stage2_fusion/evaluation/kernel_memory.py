"""Refuse kernels of all pairs of clips that memory cannot hold, before the work begins."""

from shared.training.available_memory import check_memory

MATRICES = {"kernel": 10, "statistics": 16}
"""Matrices of all pairs of training clips, float64, at the peak of each baseline, as measured at 3,000 clips. Pairs
with other clips take half as many: they are not decomposed."""


def check_kernel_memory(kind: str, clips: int, others: int) -> None:
    """UserError if the kernel baseline of this kind takes more memory than available, with this number of training
    clips and of others (for selection and scoring)."""
    size = 8 * MATRICES[kind]  # of a pair

    def fewer(free: int) -> str:
        fits = int((free / size + (others / 4) ** 2) ** 0.5 - others / 4)
        other = "" if kind == "statistics" else ", or take --kind ridge"
        return f"fit on fewer, such as --max_train_clips {max(1, fits // 100 * 100)}{other}"

    check_memory(size * clips * (clips + others / 2), f"--kind {kind}: the kernels of {clips:,} training clips", fewer)
