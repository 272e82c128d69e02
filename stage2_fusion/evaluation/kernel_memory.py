"""Kernels of all pairs of clips, refused where memory cannot hold them, before the work rather than in it."""

from shared.training.available_memory import check_memory

MATRICES = {"kernel": 10, "statistics": 16}
"""Matrices of all pairs of training clips, float64, at the peak of each baseline, as measured at 3,000 clips. Pairs of
these and others take half as many: they are not decomposed."""


def check_kernel_memory(kind: str, clips: int, others: int) -> None:
    """UserError if the kernel baseline of this kind with so many training clips, and so many others that choose and are
    scored, takes more memory than what is available."""
    size = 8 * MATRICES[kind]  # of a pair

    def fewer(free: int) -> str:
        fits = int((free / size + (others / 4) ** 2) ** 0.5 - others / 4)
        other = "" if kind == "statistics" else ", or take --kind ridge"
        return f"fit on fewer, such as --max_train_clips {max(1, fits // 100 * 100)}{other}"

    check_memory(size * clips * (clips + others / 2), f"--kind {kind}: the kernels of {clips:,} training clips", fewer)
