"""Real voices: stage 1 on RAVDESS speech, scored on actors it has never heard, at three seeds.

    python tests/benchmarks/ravdess.py --data DIR --out runs/ravdess

DIR holds RAVDESS speech (Livingstone and Russo 2018, PLoS ONE 13(5): e0196391; CC BY-NC-SA 4.0) as 16 kHz WAV or FLAC
with the published file names, such as 03-01-05-01-02-01-12.wav, in any folders. Files are read in place.

The caption of a clip is made of its file name ("a man says 'kids are talking by the door' in a strongly angry voice"),
and so are its labels (one column per emotion: 0.5 for normal, 1 for strong intensity, else 0). Each seed has other
validation and test actors, a sixth of the men and of the women each. The encoders of the epoch with the best recall
among validation actors are scored on the test actors once. Scores, mean and spread over seeds, beside the same towers
untrained and chance:

retrieval   of captions by voices and of voices by captions; equal captions are correct answers to each other
zero-shot   PCC of a voice's similarity to texts about an emotion ("strong anger") with the intensity of the emotion,
            mean over emotions; and how often the most similar emotion is the acted one
ridge       the same two for ridge regression from means and deviations of log-mel bands to the labels: what the labels
            give without contrast, captions or time

Every step skips what is done, so an interrupted run can be repeated. About ten minutes on two idle cores.

What this does not show: captions and texts about emotions are made of the labels, so "zero-shot" means supervision
through text. The emotions are acted, by at most 24 people, in two sentences; nobody mimics anybody, and nothing here
predicts results on mimicry, spontaneous speech or other languages.
"""

import dataclasses
import statistics
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from shared import config as configuration
from shared.errors import UserError
from shared.files import read_json, write_csv, write_json
from shared.metrics import pcc, recall_at
from shared.ridge import ridge_predict
from stage1_align.config import AlignConfig

if TYPE_CHECKING:
    from stage1_align.data.pairs import ValidationSet

EMOTIONS = {  # number in the file name: (column, adjective)
    "01": ("neutrality", "neutral"),
    "02": ("calm", "calm"),
    "03": ("happiness", "happy"),
    "04": ("sadness", "sad"),
    "05": ("anger", "angry"),
    "06": ("fear", "fearful"),
    "07": ("disgust", "disgusted"),
    "08": ("surprise", "surprised"),
}
NAMES = [name for name, _ in EMOTIONS.values()]
STATEMENTS = {"01": "kids are talking by the door", "02": "dogs are sitting by the door"}
PENALTIES = 10.0 ** np.arange(-1, 6)


@dataclass
class RavdessConfig:
    """Train audio-text encoders on acted voices, and score them on actors they have never heard."""

    data: Path
    """Folder with the published sound files."""
    out: Path = Path("runs/ravdess")
    """Folder of tables and runs."""
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    """Each has other test actors, weights and order."""
    settings: Path = Path("stage1_align/configs/audio_text.yaml")
    """The trainer's configuration."""
    epochs: int | None = None
    """Replaces the value of the configuration."""


def main(argv: list[str] | None = None) -> int:
    example = "python tests/benchmarks/ravdess.py --data DIR"
    config = configuration.parse(RavdessConfig, argv, prog="ravdess.py", example=example)
    results = {seed: run_seed(config, seed) for seed in config.seeds}
    write_json(config.out / "summary.json", results)
    report(results)
    return 0


def run_seed(config: RavdessConfig, seed: int) -> dict[str, dict]:
    """Scores on the test actors of this seed: {"trained", "untrained", "chance", "ridge"}."""
    from stage1_align.train import train

    folder = config.out / f"seed{seed}"
    write_table(config.data, folder / "captions.csv", seed)
    results = {}
    for name, epochs in (("untrained", 0), ("trained", config.epochs)):
        align = align_config(config, folder, name, seed, epochs)
        train(align)
        path = folder / name / "test.json"
        if not path.exists():
            write_json(path, score_encoders(align))
        results[name] = read_json(path, "scores", "delete it and run again")
    results["chance"] = chance(align)
    results["ridge"] = ridge(align)
    return results


def align_config(config: RavdessConfig, folder: Path, name: str, seed: int, epochs: int | None) -> AlignConfig:
    align = configuration.load(AlignConfig, config.settings, ["--run", str(folder / name), "--seed", str(seed)])
    (source,) = align.pairs.sources
    source.path, source.options = str(folder / "captions.csv"), {"labels": NAMES, "root": str(config.data.absolute())}
    align.train.trackers = []
    if epochs is not None:
        align.train.epochs = epochs
    return align


def write_table(data: Path, table: Path, seed: int) -> None:
    """One row per clip: audio, caption, split, labels."""
    clips = sorted(path for path in data.rglob("*") if path.suffix in (".wav", ".flac") and path.stem.count("-") == 6)
    if not clips:
        raise UserError(f"{data}: no file is named like RAVDESS speech (03-01-05-01-02-01-12.wav); give its folder")
    split = split_of_actors(sorted({path.stem[-2:] for path in clips}), seed)
    rows = []
    for path in clips:
        _, _, emotion, intensity, statement, _, actor = path.stem.split("-")
        (name, adjective), strong = EMOTIONS[emotion], intensity == "02"
        speaker, degree = "a man" if int(actor) % 2 else "a woman", "strongly " if strong else ""
        article = "an" if not strong and adjective[0] in "aeiou" else "a"
        caption = f"{speaker} says '{STATEMENTS[statement]}' in {article} {degree}{adjective} voice"
        labels = [(1.0 if strong else 0.5) * (name == column) for column in NAMES]
        rows.append([str(path.relative_to(data)), caption, split[actor], *labels])
    table.parent.mkdir(parents=True, exist_ok=True)
    write_csv(table, ["audio", "caption", "split", *NAMES], rows)


def split_of_actors(actors: list[str], seed: int) -> dict[str, str]:
    """A sixth of the men (odd numbers) and of the women is test, as many are valid. The next seed takes the next third,
    so that the validation actors of one seed are never the test actors of another."""
    split = {}
    for odd in (0, 1):
        same_sex = [actor for actor in actors if int(actor) % 2 == odd]
        count = max(1, round(len(same_sex) / 6))
        order = np.roll(np.random.default_rng(odd).permutation(same_sex), -seed * 2 * count).tolist()
        for number, actor in enumerate(order):
            split[actor] = ("test", "valid", "train")[min(number // count, 2)]
    return split


# --- scores ----------------------------------------------------------------------------------------------------------


def items_of(align: AlignConfig, split: str) -> "ValidationSet":
    """The clips of a split, as in validation."""
    from stage1_align.data.pairs import PairData

    sources = [dataclasses.replace(source, valid_split=split) for source in align.pairs.sources]
    pairs = dataclasses.replace(align.pairs, sources=sources)
    return PairData(pairs, align.train.batch_size, align.seed).valid()


def score_encoders(align: AlignConfig) -> dict[str, float]:
    from shared.training.distributed import start_accelerator
    from stage1_align.encoders import AlignedEncoders
    from stage1_align.evaluation.retrieval import embed, retrieval
    from stage1_align.evaluation.zero_shot import intensities, prompts
    from stage1_align.model import ContrastiveModel

    test = items_of(align, "test")
    accelerator = start_accelerator("no")
    encoders = AlignedEncoders.from_pretrained(align.run / "best").to(accelerator.device)
    embedded = embed(
        ContrastiveModel(encoders, align.loss, align.pairs.captions),
        accelerator,
        test,
        prompts(NAMES, align.pairs.label_template),
    )
    scores = intensities(embedded.media["audio"], embedded.prompts, len(NAMES))  # (N, K)
    return retrieval(embedded, test, align.pairs.captions) | score_labels(scores, test.labels)


def score_labels(scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """scores, labels (N, K)."""
    return {
        "pcc": float(np.mean([pcc(scores[:, k], labels[:, k]) for k in range(len(NAMES))])),
        "accuracy": float(np.mean(scores.argmax(1) == labels.argmax(1))),
    }


def chance(align: AlignConfig, draws: int = 200) -> dict[str, float]:
    """Scores of random similarities. Equal texts have equal similarities, as with any model."""
    from stage1_align.evaluation.retrieval import KS

    test, rng = items_of(align, "test"), np.random.default_rng(0)
    scores = {"pcc": 0.0, "accuracy": 1 / len(NAMES)}
    for kind, keys, texts, owners in zip(align.pairs.captions, test.keys, test.texts, test.owners, strict=True):
        ids, text_ids = (np.unique(values, return_inverse=True)[1] for values in (keys, texts))  # (N,), (M,)
        similarities = [rng.random((len(ids), text_ids.max() + 1))[:, text_ids] for _ in range(draws)]  # (N, M) each
        owner_ids = ids[np.array(owners)]  # (M,)
        for k in KS:
            by_voice = [recall_at(similarity, ids, owner_ids, k) for similarity in similarities]
            by_text = [recall_at(similarity.T, owner_ids, ids, k) for similarity in similarities]
            scores[f"audio_to_{kind}_R@{k}"] = float(np.mean(by_voice))
            scores[f"{kind}_to_audio_R@{k}"] = float(np.mean(by_text))
    return scores


def ridge(align: AlignConfig) -> dict[str, float]:
    """Ridge regression on standardized features; the penalty is chosen among the validation actors."""
    x, y = zip(*(mel_features(items_of(align, split)) for split in ("train", "valid", "test")), strict=True)
    mean, deviation = x[0].mean(0), x[0].std(0) + 1e-6
    train, valid, test = ((features - mean) / deviation for features in x)  # (N, F)

    def valid_pcc(penalty: float) -> float:
        return score_labels(ridge_predict(train, y[0], valid, penalty), y[1])["pcc"]

    return score_labels(ridge_predict(train, y[0], test, max(PENALTIES, key=valid_pcc)), y[2])


def mel_features(items: "ValidationSet") -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation over time of 64 log-mel bands, 50 Hz to 8 kHz, frames of 32 ms: (N, 128); labels (N, K)."""
    import torch
    from torchlibrosa.stft import LogmelFilterBank

    bands = LogmelFilterBank(sr=16000, n_fft=512, n_mels=64, fmin=50, fmax=8000)
    rows = []
    for index in range(len(items)):
        waveform = torch.from_numpy(items.waveform(index, 16000))  # (S,)
        power = torch.stft(waveform, 512, 256, window=torch.hann_window(512), return_complex=True).abs().square()
        mel = bands(power.T[None, None])[0, 0]  # (F, 64)
        rows.append(torch.cat([mel.mean(0), mel.std(0)]).numpy())
    return np.array(rows, dtype=np.float64), items.labels


def report(results: dict[int, dict[str, dict]]) -> None:
    """One line per score: mean and standard deviation over seeds, and the value at each seed."""
    print(f"\nseeds {', '.join(map(str, results))}; actors not heard in training; mean +- deviation (each)")
    for metric in results[next(iter(results))]["chance"]:
        for name in ("trained", "untrained", "ridge", "chance"):
            values = [scores[name][metric] for scores in results.values() if metric in scores[name]]
            if values:
                each = "  ".join(f"{value:.3f}" for value in values)
                spread = f" +- {statistics.stdev(values):.3f}" if len(values) > 1 else ""
                print(f"{metric:<24} {name:<10} {statistics.mean(values):.3f}{spread}   ({each})")
    print("Acted emotions, two sentences, captions made of the labels: this says nothing about mimicry.")


if __name__ == "__main__":
    sys.exit(main())
