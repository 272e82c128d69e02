"""Training samples of stage 1 from disk, in one process, collated for its towers."""

import cv2
import torch
from benchmarks.bench import material, stock
from benchmarks.bench.row import Bench, Measured, Row, watch, with_limit

from stage1_align.data.pairs import PairData

BATCH = 8


def ours(bench: Bench) -> Measured:
    from stage1_align import AlignedEncoders

    config = pair_config(bench)
    data = PairData(config, BATCH, 0, material.clip_dataset(bench), shrink=True)
    encoders = AlignedEncoders.from_pretrained(material.encoders(bench))
    amount = 0
    with watch() as clock:
        for epoch in range(1 + bench.size.repeats):
            for batch in data.loader(epoch, 0, 0, 1, encoders):
                amount += batch.text_id.shape[1]
    timing = clock.timing(amount)
    jpeg = cv2.imencode(".jpg", stock.load_sample(material.film(bench), 1)[0][0])[1]
    with watch() as alone:
        for _ in range(100 * config.frames):
            cv2.imdecode(jpeg, cv2.IMREAD_COLOR)
    return with_limit(timing, alone.timing(100))


def baseline(bench: Bench) -> Measured:
    frames, paths = pair_config(bench).frames, sorted(material.folder_of_films(bench).glob("*.mp4"))[:BATCH]

    class Films(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(paths)

        def __getitem__(self, index: int) -> tuple:
            return stock.load_sample(paths[index], frames)

    with watch() as clock:
        for _ in torch.utils.data.DataLoader(Films(), len(paths)):
            pass
    return Measured(clock.timing(len(paths)))


def pair_config(bench: Bench):
    from shared import config as configuration
    from stage1_align.config import AlignConfig

    options = ["--run", str(bench.folder / "none"), *material.pair_options(bench)]
    return configuration.load(AlignConfig, material.settings(bench), options).pairs


ROW = Row(
    "stage-1 samples from disk",
    "samples/s",
    ours,
    baseline,
    "a Dataset that decodes the film for each sample",
    "decoding the JPEG files of the frames by OpenCV",
    material.encoders,
)
