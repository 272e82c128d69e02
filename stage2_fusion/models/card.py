"""The model card of a fusion model (Mitchell et al. 2019, arXiv 1810.03993): architecture, training data, intended use
and limits, scores, and the licenses of its parts."""

import textwrap
from pathlib import Path
from typing import Any

from shared.text import counted
from stage2_fusion.models.model_config import FusionConfig

SYNTHETIC = "trained on synthetic drawn faces and voices; its scores of real people mean nothing"

SYNTHETIC_WARNING = """
> **This model has never met a person.** It was trained on faces and voices that `emit synth` draws. It shows that the
> pipeline works; its scores of real people mean nothing.
"""

USE = """## Intended use

Research on emotional mimicry: it estimates how intensely a person in a short clip mimics an emotion, from face, voice
and words. A score is relative to the training data: compare scores of one model only.

## Limits

- Not for decisions about people: not in hiring, education, insurance, health, policing, border control or credit, and
  not to infer what a person feels or is. Several of these uses are illegal in some places (EU AI Act, article 5).
- The labels rate mimicked or acted emotion. That is not felt emotion, and the model does not measure felt emotion.
- Expect worse scores for people, languages, cameras and microphones that the training data lack. Measure the scores on
  your own data, by group, before you rely on them.
- Missing modalities are masked, not imputed; damaged ones count less, but they still count."""


def model_card(config: FusionConfig, metrics: dict[str, Any]) -> str:
    """README.md of a model folder, with the front matter for the Hub."""
    modalities = config.options.get("modalities", ["vision", "audio", "text"])
    return f"""---
library_name: emit-toolkit
tags: [{", ".join(modalities)}, emotion, emotional-mimicry-intensity]
---
# Fusion model: {config.model}
{SYNTHETIC_WARNING if config.trained_on.synthetic else ""}
{_fill(_what(config, modalities))}

```python
from stage2_fusion import Predictor

predictor = Predictor.from_pretrained("DIR")  # or "hf-hub:OWNER/NAME"
print(predictor("clip.mp4").intensities)
```

{USE}

## Training data

{_data(config)}

## Scores

{_scores(metrics)}

## Built from

{_origins(config)}
"""


def _what(config: FusionConfig, modalities: list[str]) -> str:
    ranges = "; ".join(
        f"{', '.join(n for n, ends in config.scale.ranges.items() if ends == (low, high))} in [{low:g}, {high:g}]"
        for low, high in dict.fromkeys(config.scale.ranges.values())
    )
    tuned = f", with {', '.join(config.finetune)} trained end to end" if config.finetune else ""
    made_by = f"the aligned encoders `{config.encoders.digest}`{tuned}"
    if config.encoders.external:
        others = f", and of the aligned encoders `{config.encoders.aligned}`" if config.encoders.aligned else ""
        made_by = " and ".join(f"{title} ({name})" for name, title in config.encoders.titles.items()) + others
    return (
        f"Predicts {len(config.label_names)} intensities ({ranges}) from "
        f"{', '.join(modalities)}, on features of {made_by}."
    )


def _data(config: FusionConfig) -> str:
    about, encoders = config.trained_on, config.encoders.config.get("training", {})
    clips = "Clips that are not recorded" if about.clips is None else _count(about.clips)
    chosen = "" if about.chosen_on is None else f", {_count(about.chosen_on)} to choose the epoch"
    kind = " Drawn by `emit synth`." if about.synthetic else ""
    terms = "The license of the clips and the consent of the people in them also apply to this model."
    return _fill(f"{clips} of a clip dataset with digest `{about.data or 'not recorded'}`{chosen}.{kind} {terms}") + (
        "" if config.encoders.kept is None else f"\n\nEncoders trained on: {encoders.get('data', 'not recorded')}"
    )


def _count(clips: list[str]) -> str:
    return counted(len(clips), "clip")


def _fill(text: str) -> str:
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


def _scores(metrics: dict[str, Any]) -> str:
    pcc = metrics.get("valid", {}).get("pcc")
    if not pcc:
        return "Not recorded."
    scores = [(name, _number(value)) for name, value in (pcc["per_dimension"] | {"mean": pcc["mean"]}).items()]
    count = metrics["valid"]["n"]
    table = "\n".join(f"| {name} | {value} |" for name, value in [("dimension", "PCC"), ("---", "---"), *scores])
    return (
        f"Pearson correlation on the {counted(count, 'validation clip')} that selected the epoch, "
        "an optimistic estimate.\n"
        f"`emit evaluate` scores a test split.\n\n{table}"
    )


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"


def _origins(config: FusionConfig) -> str:
    """A row per modality: its encoder, the weights it started from, and their license."""
    encoders, parts = config.encoders, []
    if encoders.precomputed:
        parts = ["Features that came with the dataset; ask its publisher for the licenses of the networks behind them."]
    if encoders.external:
        tools = [
            f"- {name}: features of {tool.describe(config.widths[name])}, under the license of that tool; columns: "
            f"{', '.join(tool.columns) or 'without names'}"
            for name, tool in encoders.external.items()
        ]
        parts += ["\n".join(_fill(tool) for tool in tools)]
        parts += [
            _fill(f"For your own clips, make them: {encoders.how_to_make()}, and `emit predict --data FEATURES`.")
        ]
    if encoders.given:
        return "\n\n".join(parts)
    return "\n".join(
        ["| modality | encoder | initial weights (license) |", "|---|---|---|"]
        + [
            f"| {modality} | {tower['name']} | {_origin(config.encoders.config, modality)} |"
            for modality, tower in config.encoders.config.get("towers", {}).items()
        ]
    )


def _origin(encoders: dict[str, Any], modality: str) -> str:
    """Weights the encoder was initialized from, and their license."""
    options = encoders.get("training", {}).get("config", {}).get("towers", {}).get(modality, {}).get("options", {})
    weights = options.get("pretrained")
    if not weights:
        return "random" if options else "not recorded"
    name = " ".join(str(part) for part in (options.get("model"), Path(weights).name) if part)
    license = encoders["towers"][modality]["options"].get("license") or encoders["training"].get("licenses", {}).get(
        modality
    )
    return f"{name} ({license or 'license not recorded'})"
