"""The model card of exported encoders (Mitchell et al. 2019, arXiv 1810.03993): what they are, their training data and
results, and the pretrained weights they started from."""

from pathlib import Path
from typing import Any

EXAMPLES = {
    "text": "that is so funny",
    "audio": "talk.wav",
    "vision": "talk.mp4",
}


def model_card(config: dict[str, Any]) -> str:
    """README.md for the config.json of exported encoders, with the front matter that the hub reads."""
    training = config["training"]
    towers = "\n".join(
        f"| {modality} | {spec['name']} | {spec['width']} | {_rate(spec['rate'])} | {_origin(config, modality)} |"
        for modality, spec in config["towers"].items()
    )
    metrics = "\n".join(f"| {name} | {_score(value)} |" for name, value in training.get("metrics", {}).items())
    modality, example = next((m, text) for m, text in EXAMPLES.items() if m in config["towers"])
    return f"""---
library_name: emit-toolkit
tags: [{", ".join(config["towers"])}, contrastive-learning, emotion]
---
# Aligned encoders

{", ".join(config["towers"]).capitalize()} in one space of {config["embed_dim"]} dimensions, {_trained(training)}.
Digest `{config["digest"]}`.

| modality | tower | sequence width | steps per second | started from |
|---|---|---|---|---|
{towers}

Trained on: {training.get("data", "not recorded")}

Command: `{training.get("command", "not recorded")}`

| validation retrieval | recall |
|---|---|
{metrics or "| not recorded | |"}

```python
from stage1_align import AlignedEncoders

encoders = AlignedEncoders.from_pretrained("DIR", only=["{modality}"])
encoded = encoders.{modality}.encode("{example}")  # pooled (1, D), sequence (1, T, C), mask (1, T)
```
"""


def _trained(training: dict[str, Any]) -> str:
    if training.get("config", {}).get("train", {}).get("epochs") == 0:
        return "not trained together: only `sequence` is meaningful, `pooled` goes through random layers"
    return "trained with symmetric\nInfoNCE (vision-text and audio-text)"


def _score(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"


def _rate(rate: float | None) -> str:
    return f"{rate:.2f}" if rate else "one per frame or token"


def _origin(config: dict[str, Any], modality: str) -> str:
    """The pretrained weights and their license, from the training record: the exported tower is rebuilt without them,
    so its options no longer name them."""
    options = config["training"].get("config", {}).get("towers", {}).get(modality, {}).get("options", {})
    weights = options.get("pretrained")
    if not weights:
        return "random weights" if options else "not recorded"
    name = " ".join(str(part) for part in (options.get("model"), Path(weights).name) if part)
    license = config["towers"][modality]["options"].get("license") or config["training"].get("licenses", {}).get(
        modality
    )
    return f"{name} ({license or 'license not recorded: ask its publisher'})"
