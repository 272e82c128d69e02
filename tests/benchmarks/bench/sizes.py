"""How large the rows are."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """All that decides how long a run of the benchmark takes."""

    turns: int = 3
    """Measurements of each side."""
    clip_seconds: float = 7.0
    """Length of the film that decode, prepare, predict and page read."""
    clips: int = 24
    """Copies of it that prepare, the loader and encode read."""
    towers: str = "tiny"
    """Towers of the loader, encode and predict: a shipped configuration of stage 1; "" for those of the tests; `full`
    for those of clip_htsat.py, which encode alone takes."""
    repeats: int = 3
    """Times that a short piece of work is done on the clock."""
    loss_batch: int = 8192
    """N of the loss."""
    model: str = "ViT-S-32"
    """open_clip model of the training step, whose text tower is CLIP's."""
    batch: int = 16
    """Samples of a training step."""
    chunk: int = 4
    """Samples that the gradient cache encodes at once."""
    steps: int = 2
    """Training steps on the clock."""
    warmup: int = 1
    """Training steps before it starts; compiled towers are compiled again for the first texts of another length."""
    audio: str = "tiny"
    """Size of HTSAT."""
    compile: bool = False
    train_clips: int = 1024
    """Clips of an epoch of stage 2."""
    matrix: int = 1024
    """Side of the matrices whose product is the limit."""
    largest: int = 64
    """Where the search for the largest batch stops."""


SIZES = {
    "standard": Size(),
    "tiny": Size(
        turns=1,
        clip_seconds=1.0,
        clips=4,
        towers="",
        repeats=1,
        loss_batch=64,
        model="emit-bench-tiny",
        batch=4,
        chunk=2,
        steps=1,
        audio="",
        train_clips=32,
        matrix=64,
        largest=8,
    ),
    "gpu": Size(
        clips=256,
        towers="full",
        model="ViT-B-32",
        batch=256,
        chunk=1024,
        steps=20,
        warmup=6,
        compile=True,
        train_clips=8072,
        matrix=8192,
        largest=65536,
    ),
}
