"""Well-known pretrained towers: which tower loads them, what they were trained on hearing or seeing, and their license.

    python -m stage1_align.export.checkpoints                        a table of all
    python -m stage1_align.export.checkpoints ViT-B-32/openai        one of them, and how to get it
    python -m stage1_align.export.checkpoints ViT-B-32/openai PATH   what to write into a stage-1 configuration

Licences are those the origin states for its weights; the data behind them may restrict more. Nothing is downloaded
here, and every path is read by its tower without running code from it.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shared.errors import UserError
from shared.registry import nearest

UNKNOWN = "unknown, see origin"
COMMERCIAL = {"apache-2.0": True, "mit": True, "cc0-1.0": True, "cc-by-nc-sa-4.0": False}


@dataclass(frozen=True)
class Checkpoint:
    """One published set of weights for one tower."""

    name: str
    """What it is called here: open_clip's model/tag, or where it is on the Hugging Face hub."""
    modality: str
    """vision, audio or text."""
    tower: str
    """The tower that loads it, by its name in the registry of its modality."""
    license: str
    """As its origin states it, by SPDX name in lower case."""
    origin: str
    """Hugging Face hub id; with a file name behind a colon where one file is meant."""
    takes: str
    """What it was trained on: frame size, sample rate, length of texts."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of the tower besides the path."""
    cannot: str = ""
    """Why no tower loads it, and what to take instead."""

    @property
    def commercial(self) -> bool | None:
        """Whether the license allows commercial use; None where it is not known."""
        return COMMERCIAL.get(self.license)

    @property
    def get(self) -> str:
        """The command that downloads it."""
        repository, _, file = self.origin.partition(":")
        return " ".join(["hf download", repository, *([file] if file else []), "--local-dir DIR"])


def _open_clip() -> list[Checkpoint]:
    """Image towers of open_clip and the text towers they are aligned with."""
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
    found = []
    for model, tag, origin, license in published:
        options = {"model": model, "pretrained": tag}
        takes = f"{64 if 'SigLIP' in model else 76 if 'coca' in model else 77} tokens"
        found += [
            Checkpoint(f"{model}/{tag}", "vision", "open_clip", license, origin, "frames of 224 pixels", options),
            Checkpoint(f"{model}/{tag}:text", "text", "open_clip", license, origin, takes, options),
        ]
    return found


def _audio() -> list[Checkpoint]:
    fused = "it was trained with fusion, which no tower here has; take the one without"
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
        ("facebook/wav2vec2-large-robust", "wav2vec2", "apache-2.0", 16, ""),
        ("facebook/hubert-base-ls960", "wav2vec2", "apache-2.0", 16, ""),
        ("microsoft/wavlm-base-plus", "wav2vec2", UNKNOWN, 16, ""),
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
            cannot,
        )
        for name, size, cannot in laion
    ] + [
        Checkpoint(name, "audio", tower, license, name, f"{rate} kHz", cannot=cannot)
        for name, tower, license, rate, cannot in hub
    ]


def _text() -> list[Checkpoint]:
    hub = [
        ("FacebookAI/roberta-base", "mit", 512),
        ("FacebookAI/xlm-roberta-base", "mit", 512),
        ("Alibaba-NLP/gte-base-en-v1.5", "apache-2.0", 8192),
        ("Alibaba-NLP/gte-large-en-v1.5", "apache-2.0", 8192),
        ("Alibaba-NLP/gte-multilingual-base", "apache-2.0", 8192),
        ("Alibaba-NLP/gte-en-mlm-base", "apache-2.0", 8192),
        ("thenlper/gte-base", "mit", 512),
    ]
    return [Checkpoint(name, "text", "transformer", license, name, f"{length} tokens") for name, license, length in hub]


CHECKPOINTS = {one.name: one for one in [*_open_clip(), *_audio(), *_text()]}


def find(name: str) -> Checkpoint:
    """The checkpoint called `name`; UserError names the nearest one when there is none."""
    if name not in CHECKPOINTS:
        raise UserError(f"no checkpoint called {name!r}: {nearest(name, CHECKPOINTS)}")
    return CHECKPOINTS[name]


def describe(name: str) -> str:
    """What a person wants to know of it before use: a few lines."""
    one = find(name)
    lines = [
        f"{one.name}: {one.modality} tower {one.tower!r}, trained on {one.takes}",
        f"license: {one.license} (commercial use: {_allowed(one)})",
        f"origin: https://huggingface.co/{one.origin.partition(':')[0]}",
        f"get it: {one.get}",
    ]
    return "\n".join([*lines, *([f"cannot be loaded: {one.cannot}"] if one.cannot else [])])


def options_for(name: str, path: str | Path | None = None) -> dict[str, Any]:
    """The options with which its tower loads it from `path`: the downloaded folder, or the file in it.

    Without a path open_clip's image towers are left to open_clip, which fetches them when there is a network. Says on
    stdout when commercial use is not allowed. UserError when no tower loads it or the path does not exist.
    """
    one = find(name)
    if one.cannot:
        raise UserError(f"{name}: {one.cannot}")
    if path is None and one.modality != "vision":
        raise UserError(f"{name}: download it ({one.get}) and give its path")
    if path is not None and not Path(path).exists():
        raise UserError(f"{path}: no such file or folder; download {name} ({one.get})")
    if one.commercial is False:
        print(f"{name}: its license, {one.license}, does not allow commercial use")
    if path is None:
        return dict(one.options)
    if one.tower != "open_clip":
        return one.options | {"pretrained": str(_file(one, Path(path)))}
    if one.modality == "vision" and Path(path).is_dir():
        return {"pretrained": str(path)}  # the folder says the rest
    file = _file(one, Path(path))
    return one.options | {"pretrained": str(file)} | _not_in_the_file(one, file.parent)


def _not_in_the_file(one: Checkpoint, folder: Path) -> dict[str, Any]:
    """What a bare file of open_clip does not say and its tables or the folder around it do: activation, normalisation
    and a tokenizer that is not open_clip's own."""
    import open_clip

    tag = open_clip.get_pretrained_cfg(one.options["model"], one.options["pretrained"])
    quick_gelu = bool(tag.get("quick_gelu"))
    if one.modality == "text":
        other = open_clip.get_model_config(one.options["model"])["text_cfg"].get("hf_tokenizer_name")
        return {"quick_gelu": quick_gelu, **({"tokenizer": str(folder)} if other else {})}
    seen = {key: list(tag[key]) for key in ("mean", "std")} | {"interpolation": tag["interpolation"]}
    return {"vision_cfg": {"quick_gelu": quick_gelu}, **seen}


def _file(one: Checkpoint, path: Path) -> Path:
    """The file its tower reads, where that is a file and `path` the folder around it."""
    from stage1_align.towers.open_clip_source import WEIGHTS

    names = WEIGHTS if one.tower == "open_clip" else tuple(filter(None, [one.origin.partition(":")[2]]))
    if not path.is_dir() or not names:
        return path
    file = next((path / name for name in names if (path / name).is_file()), None)
    if file is None:
        raise UserError(f"{path}: has no {' or '.join(names)}; download {one.name} again ({one.get})")
    return file


def _allowed(one: Checkpoint) -> str:
    return {True: "allowed", False: "not allowed", None: "not known"}[one.commercial]


def main(argv: list[str] | None = None) -> int:
    import yaml

    arguments = sys.argv[1:] if argv is None else argv
    if len(arguments) > 2 or any(argument.startswith("-") for argument in arguments):
        print(__doc__)
        return 0 if {"-h", "--help"} & set(arguments) else 2
    if len(arguments) == 2:
        one = find(arguments[0])
        tower = {"name": one.tower, "options": options_for(*arguments)}
        print(yaml.safe_dump({"towers": {one.modality: tower}}, sort_keys=False), end="")
    elif arguments:
        print(describe(arguments[0]))
    else:
        rows = [("name", "modality", "tower", "license", "commercial use", "trained on")]
        rows += [(c.name, c.modality, c.tower, c.license, _allowed(c), c.takes) for c in CHECKPOINTS.values()]
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        for row in rows:
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


if __name__ == "__main__":
    from shared.cli import run_main

    run_main(main)
