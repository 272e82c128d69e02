"""Well-known pretrained towers: the tower that loads them, the format of their training inputs, and their license.

    python -m stage1_align.export.checkpoints                        a table of all
    python -m stage1_align.export.checkpoints ViT-B-32/openai        one checkpoint, and how to get it
    python -m stage1_align.export.checkpoints ViT-B-32/openai PATH   its entry for a stage-1 configuration

Licenses are as stated by the origin of the weights; the training data may be more restrictive. Nothing is downloaded
here, and every tower loads its files without running code from them.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shared.errors import UserError
from shared.registry import nearest

UNKNOWN = "unknown, see origin"
WHISPER_SIZES = ("tiny", "tiny.en", "base", "base.en", "small", "small.en", "medium", "large-v2", "large-v3")
COMMERCIAL = {"apache-2.0": True, "mit": True, "cc0-1.0": True, "cc-by-nc-sa-4.0": False}


@dataclass(frozen=True)
class Checkpoint:
    """One published set of weights for one tower."""

    name: str
    """Its name here: open_clip's model/tag, or its id on the Hugging Face hub."""
    modality: str
    """vision, audio or text."""
    tower: str
    """The tower that loads it, by its registered name."""
    license: str
    """SPDX name in lower case, as stated by the origin."""
    origin: str
    """Hugging Face hub id, followed by a colon and a file name if it is a single file."""
    inputs: str
    """Its training inputs: frame size, sample rate, length of texts."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of the tower besides the path."""
    unsupported: str = ""
    """Why no tower loads it, and what to use instead."""

    @property
    def commercial(self) -> bool | None:
        """Whether the license allows commercial use; None when unknown."""
        return COMMERCIAL.get(self.license)

    @property
    def download(self) -> str:
        """The command that downloads it."""
        repository, _, file = self.origin.partition(":")
        return " ".join(["hf download", repository, *([file] if file else []), "--local-dir DIR"])


def _open_clip() -> list[Checkpoint]:
    """Image towers of open_clip and the text towers aligned with them."""
    laion, datacomp = "laion/CLIP-{}-laion2B-{}", "laion/CLIP-{}-DataComp.XL-s13B-b90K"
    published = [
        ("ViT-B-32", "openai", "timm/vit_base_patch32_clip_224.openai", "apache-2.0"),
        ("ViT-B-16", "openai", "timm/vit_base_patch16_clip_224.openai", UNKNOWN),
        ("ViT-L-14", "openai", "timm/vit_large_patch14_clip_224.openai", "apache-2.0"),
        ("ViT-B-32", "laion2b_s34b_b79k", laion.format("ViT-B-32", "s34B-b79K"), "mit"),
        ("ViT-B-16", "laion2b_s34b_b88k", laion.format("ViT-B-16", "s34B-b88K"), "mit"),
        ("ViT-L-14", "laion2b_s32b_b82k", laion.format("ViT-L-14", "s32B-b82K"), "mit"),
        ("ViT-B-32", "datacomp_xl_s13b_b90k", datacomp.format("ViT-B-32"), "mit"),
        ("ViT-B-16", "datacomp_xl_s13b_b90k", datacomp.format("ViT-B-16"), "mit"),
        ("ViT-L-14", "datacomp_xl_s13b_b90k", datacomp.format("ViT-L-14"), "mit"),
        ("coca_ViT-B-32", "laion2b_s13b_b90k", "laion/CoCa-ViT-B-32-laion2B-s13B-b90k", "mit"),
        ("coca_ViT-L-14", "laion2b_s13b_b90k", "laion/CoCa-ViT-L-14-laion2B-s13B-b90k", "mit"),
        ("ViT-B-16-SigLIP", "webli", "timm/ViT-B-16-SigLIP", "apache-2.0"),
        ("ViT-B-16-SigLIP2", "webli", "timm/ViT-B-16-SigLIP2", UNKNOWN),
    ]
    checkpoints = []
    for model, tag, origin, license in published:
        options = {"model": model, "pretrained": tag}
        length = f"{64 if 'SigLIP' in model else 76 if 'coca' in model else 77} tokens"
        checkpoints += [
            Checkpoint(f"{model}/{tag}", "vision", "open_clip", license, origin, "frames of 224 pixels", options),
            Checkpoint(f"{model}/{tag}:text", "text", "open_clip", license, origin, length, options),
        ]
    return checkpoints


def _timm() -> list[Checkpoint]:
    """Image models of timm, without a text tower."""
    sizes = {
        "vit_base_patch16_224.augreg2_in21k_ft_in1k": 224,
        "vit_base_patch16_224.orig_in21k": 224,
        "vit_huge_patch14_224.orig_in21k": 224,
        "vit_base_patch14_dinov2.lvd142m": 518,
    }
    return [
        Checkpoint(f"timm/{name}", "vision", "open_clip", "apache-2.0", f"timm/{name}", f"frames of {size} pixels")
        for name, size in sizes.items()
    ]


def _audio() -> list[Checkpoint]:
    fused = "it was trained with fusion, which no tower here supports; use the checkpoint without"
    laion = [
        ("630k-best", "tiny", ""),
        ("630k-audioset-best", "tiny", ""),
        ("630k-fusion-best", "tiny", fused),
        ("630k-audioset-fusion-best", "tiny", fused),
        ("music_audioset_epoch_15_esc_90.14", "base", ""),
        ("music_speech_epoch_15_esc_89.25", "base", ""),
        ("music_speech_audioset_epoch_15_esc_89.98", "base", ""),
    ]
    hub = [
        ("laion/clap-htsat-unfused", "clap", "apache-2.0", 48, ""),
        ("laion/clap-htsat-fused", "clap", "apache-2.0", 48, fused),
        ("laion/larger_clap_music_and_speech", "clap", "apache-2.0", 48, ""),
        ("facebook/wav2vec2-base", "wav2vec2", "apache-2.0", 16, ""),
        ("facebook/wav2vec2-base-960h", "wav2vec2", "apache-2.0", 16, ""),
        ("facebook/wav2vec2-large-robust", "wav2vec2", "apache-2.0", 16, ""),
        ("facebook/hubert-base-ls960", "wav2vec2", "apache-2.0", 16, ""),
        ("facebook/hubert-large-ls960-ft", "wav2vec2", "apache-2.0", 16, ""),
        ("microsoft/wavlm-base-plus", "wav2vec2", UNKNOWN, 16, ""),
        ("microsoft/wavlm-large", "wav2vec2", UNKNOWN, 16, ""),
        *((f"openai/whisper-{size}", "whisper", "apache-2.0", 16, "") for size in WHISPER_SIZES),
        ("audeering/wav2vec2-large-robust-12-ft-emotion-msp-dim", "audeering", "cc-by-nc-sa-4.0", 16, ""),
    ]
    return [
        Checkpoint(
            f"laion_clap/{name}",
            "audio",
            "htsat",
            "cc0-1.0",
            f"lukewys/laion_clap:{name}.pt",
            "48 kHz, 10 s",
            {"size": size},
            unsupported,
        )
        for name, size, unsupported in laion
    ] + [
        Checkpoint(name, "audio", tower, license, name, f"{rate} kHz", unsupported=unsupported)
        for name, tower, license, rate, unsupported in hub
    ]


def _text() -> list[Checkpoint]:
    hub = [
        ("google-bert/bert-base-uncased", "apache-2.0", 512),
        ("FacebookAI/roberta-base", "mit", 512),
        ("FacebookAI/xlm-roberta-base", "mit", 512),
        ("SamLowe/roberta-base-go_emotions", "mit", 512),
        ("Alibaba-NLP/gte-base-en-v1.5", "apache-2.0", 8192),
        ("Alibaba-NLP/gte-large-en-v1.5", "apache-2.0", 8192),
        ("Alibaba-NLP/gte-multilingual-base", "apache-2.0", 8192),
        ("Alibaba-NLP/gte-en-mlm-base", "apache-2.0", 8192),
        ("thenlper/gte-base", "mit", 512),
        ("sentence-transformers/all-MiniLM-L6-v2", "apache-2.0", 256),
    ]
    return [Checkpoint(name, "text", "transformer", license, name, f"{length} tokens") for name, license, length in hub]


CHECKPOINTS = {checkpoint.name: checkpoint for checkpoint in [*_open_clip(), *_timm(), *_audio(), *_text()]}


def find(name: str) -> Checkpoint:
    """The checkpoint called `name`; UserError names the nearest one if it does not exist."""
    if name not in CHECKPOINTS:
        raise UserError(f"no checkpoint called {name!r}: {nearest(name, CHECKPOINTS)}")
    return CHECKPOINTS[name]


def describe(name: str) -> str:
    """Tower, inputs, license, origin and download command of a checkpoint, a few lines."""
    checkpoint = find(name)
    lines = [
        f"{checkpoint.name}: {checkpoint.modality} tower {checkpoint.tower!r}, trained on {checkpoint.inputs}",
        f"license: {checkpoint.license} (commercial use: {_allowed(checkpoint)})",
        f"origin: https://huggingface.co/{checkpoint.origin.partition(':')[0]}",
        f"download: {checkpoint.download}",
    ]
    return "\n".join([*lines, *([f"cannot be loaded: {checkpoint.unsupported}"] if checkpoint.unsupported else [])])


def options_for(name: str, path: str | Path | None = None) -> dict[str, Any]:
    """The tower's options that load a checkpoint from `path`, the downloaded folder or the file in it.

    Without a path, open_clip downloads its image towers if there is a network. Prints a line if commercial use is not
    allowed. UserError if no tower loads the checkpoint or the path does not exist.
    """
    checkpoint = find(name)
    if checkpoint.unsupported:
        raise UserError(f"{name}: {checkpoint.unsupported}")
    if path is None and not (checkpoint.modality == "vision" and checkpoint.options):
        raise UserError(f"{name}: download it ({checkpoint.download}) and give its path")
    if path is not None and not Path(path).exists():
        raise UserError(f"{path}: no such file or folder; download {name} ({checkpoint.download})")
    if checkpoint.commercial is False:
        print(f"{name}: its license, {checkpoint.license}, does not allow commercial use")
    if path is None:
        return dict(checkpoint.options)
    if checkpoint.tower != "open_clip":
        return checkpoint.options | {"pretrained": str(_file(checkpoint, Path(path)))}
    if checkpoint.modality == "vision" and Path(path).is_dir():
        return {"pretrained": str(path)}  # the folder holds the rest
    file = _file(checkpoint, Path(path))
    return checkpoint.options | {"pretrained": str(file)} | _options_beside_file(checkpoint, file.parent)


def _options_beside_file(checkpoint: Checkpoint, folder: Path) -> dict[str, Any]:
    """Options missing from a bare checkpoint file of open_clip, from open_clip's tables and the folder of the file:
    activation, normalization, and a tokenizer that is not open_clip's own."""
    import open_clip

    tag = open_clip.get_pretrained_cfg(checkpoint.options["model"], checkpoint.options["pretrained"])
    quick_gelu = bool(tag.get("quick_gelu"))
    if checkpoint.modality == "text":
        tokenizer = open_clip.get_model_config(checkpoint.options["model"])["text_cfg"].get("hf_tokenizer_name")
        return {"quick_gelu": quick_gelu, **({"tokenizer": str(folder)} if tokenizer else {})}
    preprocessing = {key: list(tag[key]) for key in ("mean", "std")} | {"interpolation": tag["interpolation"]}
    return {"vision_cfg": {"quick_gelu": quick_gelu}, **preprocessing}


def _file(checkpoint: Checkpoint, path: Path) -> Path:
    """The file that the tower reads; `path` may also be its folder."""
    from stage1_align.towers.open_clip_loading import WEIGHTS

    names = WEIGHTS if checkpoint.tower == "open_clip" else tuple(filter(None, [checkpoint.origin.partition(":")[2]]))
    if not path.is_dir() or not names:
        return path
    file = next((path / name for name in names if (path / name).is_file()), None)
    if file is None:
        raise UserError(
            f"{path}: has no {' or '.join(names)}; download {checkpoint.name} again ({checkpoint.download})"
        )
    return file


def _allowed(checkpoint: Checkpoint) -> str:
    return {True: "allowed", False: "not allowed", None: "unknown"}[checkpoint.commercial]


def main(argv: list[str] | None = None) -> int:
    import yaml

    arguments = sys.argv[1:] if argv is None else argv
    if len(arguments) > 2 or any(argument.startswith("-") for argument in arguments):
        print(__doc__)
        return 0 if {"-h", "--help"} & set(arguments) else 2
    if len(arguments) == 2:
        checkpoint = find(arguments[0])
        tower = {"name": checkpoint.tower, "options": options_for(*arguments)}
        print(yaml.safe_dump({"towers": {checkpoint.modality: tower}}, sort_keys=False), end="")
    elif arguments:
        print(describe(arguments[0]))
    else:
        rows = [("name", "modality", "tower", "license", "commercial use", "trained on")]
        rows += [(c.name, c.modality, c.tower, c.license, _allowed(c), c.inputs) for c in CHECKPOINTS.values()]
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        for row in rows:
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


if __name__ == "__main__":
    from shared.cli import run_main

    run_main(main)
