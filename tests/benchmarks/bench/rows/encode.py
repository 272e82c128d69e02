"""`emit encode`: prepared clips through frozen encoders, without damaged views."""

from pathlib import Path

from benchmarks.bench import clip_htsat, limits, material
from benchmarks.bench.row import Bench, Measured, Row, watch, with_limit

from shared.dataset.clip_dataset import ClipDataset
from shared.training.precision import resolve_precision
from stage1_align import AlignedEncoders
from stage1_align.setup import build_encoders
from stage2_fusion.data.encoding import encode_dataset, encode_samples, load_clip
from stage2_fusion.inference import best_device


def ours(bench: Bench) -> Measured:
    encoders, clips = load(bench)
    bf16 = resolve_precision("--mixed_precision", "auto", ("no", "bf16"), encoders) == "bf16"
    settings = {"damaged_views": 0, "batch_size": 32, "seed": 0, "bf16": bf16}
    list(encode_dataset(encoders, clips, [range(2)], **settings))
    with watch() as clock:
        count = sum(1 for _ in encode_dataset(encoders, clips, **settings))
    batch = [load_clip(clips, row, encoders.audio.sample_rate) for row in range(min(8, len(clips)))]
    flops = limits.count_flops(lambda: encode_samples(encoders, batch))
    return with_limit(clock.timing(count), limits.products(bench, flops, len(batch), bf16))


def baseline(bench: Bench) -> Measured:
    encoders, clips = load(bench)
    with watch() as clock:
        for row in range(len(clips)):
            clip = load_clip(clips, row, encoders.audio.sample_rate)
            for name, item in (("vision", clip.frames), ("audio", clip.waveform), ("text", clip.transcript)):
                tower = encoders.tower(name)
                tower.encode_prepared([tower.prepare_text(item) if name == "text" else item])
    return Measured(clock.timing(len(clips)))


def load(bench: Bench) -> tuple[AlignedEncoders, ClipDataset]:
    if bench.size.towers == "full":
        encoders = build_encoders(clip_htsat.align_config(bench, 2, 0), clip_htsat.pair_data(bench, 2)).eval()
    else:
        encoders = AlignedEncoders.from_pretrained(material.encoders(bench))
    return encoders.to(best_device()), ClipDataset.open(clips(bench))


def clips(bench: Bench) -> Path:
    return clip_htsat.clips(bench) if bench.size.towers == "full" else material.clip_dataset(bench)


ROW = Row(
    "encode",
    "clips/s",
    ours,
    baseline,
    "a loop over the clips, one at a time, in fp32",
    "operations of the towers at the rate of torch.mm",
    clips,
)
