"""The worst, the least certain and the best clips: their content, and the model's predictions."""

from dataclasses import dataclass, replace

import numpy as np

from shared.dataset.clip_dataset import ClipSample
from shared.dataset.label_scale import LabelScale
from shared.errors import UserError
from shared.text import counted
from stage2_fusion.data.features import FeatureSample
from stage2_fusion.inference import StepExplanation, run_model
from stage2_fusion.report.clip_choice import (
    Choice,
    ScoredClip,
    choose_clips,
    clip_errors,
    partial_rank_correlation,
    rank_correlation,
    spread_without,
)
from stage2_fusion.report.clip_figures import COVERAGE, scores_figure, timeline_figure
from stage2_fusion.report.content import Block, Grid, Group, NotFound, Section, Table, Text
from stage2_fusion.report.figures import short
from stage2_fusion.report.inputs import Inputs
from stage2_fusion.report.scored import scored_features, scored_model

LISTED = 3
"""Clips of each kind in the table, if none is shown."""
FEWEST = 20
"""Fewest clips for the correlation of spread and error."""
MOST_CLIPS = 2000
"""Most clips for the spread; from more clips, an even sample of this size."""
LONGEST_WORDS = 400
"""Most characters of a transcript."""


@dataclass
class _Scored:
    """All clips of the split, with their predictions as fractions."""

    ids: list[str]
    predictions: np.ndarray
    """(N, K)."""
    labels: np.ndarray
    """(N, K)."""
    names: list[str]
    scale: LabelScale


def clips(inputs: Inputs) -> Section:
    """The section."""
    section = Section("Clips")
    samples = _samples(inputs, section)
    scored = _scored(inputs, samples)
    spread = _spread(inputs, scored, samples)
    errors = clip_errors(scored.predictions, scored.labels)
    listed = [
        ScoredClip(
            name,
            scored.predictions[i],
            scored.labels[i],
            None if np.isnan(errors[i]) else float(errors[i]),
            spread.get(name),
        )
        for i, name in enumerate(scored.ids)
    ]
    listed = with_intervals(inputs, listed, samples)
    choices = choose_clips(listed, inputs.clips_shown or LISTED)
    section.lead = _lead(listed)
    if not inputs.clips_shown:
        section.blocks.append(_table(choices))
        section.missing.append("pictures, sound and words of clips, left out by --clips_shown 0")
        return section
    chosen = [clip for choice in choices for clip in choice.clips]
    steps = _explanations(inputs, chosen, samples)
    media = _media(inputs, chosen, section)
    number = 0
    for choice in choices:
        blocks: list[Block] = [Text(choice.note)]
        for place, clip in enumerate(choice.clips):
            number += 1
            inner = _clip(f"clip-{number}", clip, scored, media.get(clip.id), steps.get(clip.id))
            blocks.append(Group(_title(clip), inner, folded=place > 0))
        section.blocks.append(Group(choice.title, blocks))
    section.blocks.append(Text(LEGEND if steps else LEGEND_WITHOUT_MODEL))
    return section


LEGEND_WITHOUT_MODEL = "Errors and spreads are shares of the range of the labels."
LEGEND = (
    "Over time: the face crops that the encoder gets, the sound, the weights of the modalities (none if one is "
    f"missing), and the attention of each dimension, darker for more. {LEGEND_WITHOUT_MODEL}"
)


def _lead(clips: list[ScoredClip]) -> str:
    errors = [clip.error for clip in clips if clip.error is not None]
    text = f"From {counted(len(clips), 'clip')}. "
    if errors:
        text += f"The median clip is wrong by {np.median(errors):.3f} of the range, the worst by {max(errors):.3f}. "
    else:
        text += "None is labeled, so there is no best and no worst. "
    spreads = [clip.spread for clip in clips if clip.spread is not None]
    if spreads:
        text += (
            "The spread is how far a prediction moves if picture, sound or words are left out: "
            f"{np.median(spreads):.3f} in the median clip, {max(spreads):.3f} at most."
        )
    both = [clip for clip in clips if clip.error is not None and clip.spread is not None]
    if len(both) >= FEWEST:
        text += _use_of_spread(both)
    return text


def _use_of_spread(clips: list[ScoredClip]) -> str:
    """Whether a large spread comes with a large error."""
    error, spread = np.array([clip.error for clip in clips]), np.array([clip.spread for clip in clips])
    strength = np.array([clip.predictions.mean() for clip in clips])
    rank, partial = rank_correlation(error, spread), partial_rank_correlation(error, spread, strength)
    if rank is None or partial is None:
        return ""
    use = "it tells which predictions to trust" if partial > 0.2 else "do not read it as an error bar"
    return f" Its rank correlation with the error is {rank:.2f}, among equally strong predictions {partial:.2f}: {use}."


# --- reading the clips -----------------------------------------------------------------------------------------------


def _samples(inputs: Inputs, section: Section) -> dict[str, FeatureSample]:
    """{id: undamaged sample} of the split; {} without the features or the model."""
    try:
        model = scored_model(inputs)
        data = scored_features(inputs)
        model.config.check_features(data.info, inputs.features_path)
    except (NotFound, UserError) as reason:
        section.missing.append(f"weights, attention and certainty: {reason}")
        return {}
    return {sample.id: sample for sample in data.select(model.config.label_names).samples if sample.view == 0}


def _scored(inputs: Inputs, samples: dict[str, FeatureSample]) -> _Scored:
    """The predictions of the evaluation; without an evaluation, of the model."""
    try:
        evaluation = inputs.evaluation
    except NotFound:
        if not samples:
            raise
        model = scored_model(inputs)
        predictions = run_model(model, list(samples.values()), 64).predictions.astype(np.float64)
        labels = np.stack([sample.labels for sample in samples.values()]).astype(np.float64)
        return _Scored(list(samples), predictions, labels, model.config.label_names, model.config.scale)
    scale = evaluation.scale
    predictions, labels = scale.fractions(evaluation.predictions), scale.fractions(evaluation.labels)
    return _Scored(evaluation.ids, predictions, labels, evaluation.names, scale)


def _spread(inputs: Inputs, scored: _Scored, samples: dict[str, FeatureSample]) -> dict[str, float]:
    ids = [name for name in scored.ids if name in samples]
    if not ids:
        return {}
    ids = [ids[i] for i in np.unique(np.linspace(0, len(ids) - 1, MOST_CLIPS).round().astype(int))]
    values = spread_without(scored_model(inputs), [samples[name] for name in ids])
    return {name: float(value) for name, value in zip(ids, values, strict=True) if not np.isnan(value)}


def with_intervals(inputs: Inputs, clips: list[ScoredClip], samples: dict[str, FeatureSample]) -> list[ScoredClip]:
    """The clips with the intervals of their predictions, if the model has any. Dimensions without a bound have none."""
    calibration = scored_model(inputs).calibration if samples else None
    if calibration is None or not clips:
        return clips
    low, high = calibration.intervals.bounds(np.stack([clip.predictions for clip in clips]), COVERAGE)  # (N, K)
    unbounded = np.isinf(calibration.intervals.factors(COVERAGE))  # (K,)
    low, high = (np.where(unbounded, np.nan, ends) for ends in (low, high))
    return [replace(clip, interval=(low[i], high[i])) for i, clip in enumerate(clips)]


def _explanations(
    inputs: Inputs, chosen: list[ScoredClip], samples: dict[str, FeatureSample]
) -> dict[str, StepExplanation]:
    ids = [clip.id for clip in chosen if clip.id in samples]
    if not ids:
        return {}
    result = run_model(scored_model(inputs), [samples[name] for name in ids], 16, explain=True)
    return dict(zip(ids, result.steps, strict=True))


def _media(inputs: Inputs, chosen: list[ScoredClip], section: Section) -> dict[str, ClipSample]:
    """{id: prepared clip}; what cannot be read becomes a line of the section."""
    try:
        rows = {name: row for row, name in enumerate(inputs.clips.column("id"))}
    except (NotFound, UserError) as reason:
        section.missing.append(f"pictures, sound and words: {reason}")
        return {}
    samples = {}
    for clip in chosen:
        if clip.id in rows:
            try:
                samples[clip.id] = inputs.clips[rows[clip.id]]
            except (UserError, ValueError) as reason:
                section.missing.append(f"pictures, sound and words of one clip: {reason}")
    if len(samples) < len(chosen):
        section.missing.append(
            f"pictures, sound and words of {counted(len(chosen) - len(samples), 'clip')}: not in {inputs.clips_path}"
        )
    return samples


# --- the page --------------------------------------------------------------------------------------------------------


def _clip(
    name: str, clip: ScoredClip, scored: _Scored, sample: ClipSample | None, steps: StepExplanation | None
) -> list[Block]:
    figures = [timeline_figure(name, clip, sample, steps, scored.names)]
    figures.append(scores_figure(name, clip, scored.names, scored.scale))
    blocks: list[Block] = [Grid([figure for figure in figures if figure is not None])]
    if sample is not None:
        words = sample.transcript[:LONGEST_WORDS] + "…" * (len(sample.transcript) > LONGEST_WORDS)
        parts = [f"“{words}”" if words.strip() else "No words."]
        parts += ["No picture."] * (not len(sample.frames)) + ["No sound."] * (not len(sample.waveform))
        groups = [g if g.startswith(kind) else f"{kind} {g}" for kind, g in sample.groups.items() if g]
        parts.append(f"({'; '.join([f'{sample.duration:.1f} s', *groups])})")
        blocks.append(Text(" ".join(parts)))
    return blocks


def _title(clip: ScoredClip) -> str:
    parts = [f"wrong by {clip.error:.3f}"] if clip.error is not None else []
    parts += [f"spread {clip.spread:.3f}"] if clip.spread is not None else []
    name = short(clip.id, 60)
    return f"{name}: {', '.join(parts)}" if parts else name


def _table(choices: list[Choice]) -> Table:
    rows = [
        [
            short(clip.id, 60),
            choice.title.lower(),
            *("–" if v is None else f"{v:.3f}" for v in (clip.error, clip.spread)),
        ]
        for choice in choices
        for clip in choice.clips
    ]
    return Table("Clips to look at; errors are shares of the range.", ["clip", "kind", "error", "spread"], rows, (2, 3))
