"""Every fusion model: its forward pass equals loops over clips, steps and heads that use the weights of the model."""

import pytest
import torch
from helpers import synthetic_features
from helpers.fusion_references import REFERENCES

from shared.errors import UserError
from stage2_fusion.config import LossConfig
from stage2_fusion.data.batches import collate
from stage2_fusion.data.features import ModalityFeatures
from stage2_fusion.inference import run_model
from stage2_fusion.losses import FusionLoss, LossInputs
from stage2_fusion.models import MODELS
from stage2_fusion.models.base import FeatureSpec, FusionModel
from stage2_fusion.models.concat_vad import pool_steps

VARIANTS = [
    {"normalizer": "sigmoid"},
    {"weight_per": "clip"},
    {"weight_per": "clip", "normalizer": "sigmoid", "queries": "text"},
    {"weighting": "uniform", "queries": "learned"},
    {"queries": "text", "decoder_layers": 1},
    {"decoder_layers": 0, "pooled": False},
    {"tcn_layers": 0, "lstm_layers": 0, "shortcut": False},
    {"lstm_layers": 2, "steps": 5},
]
"""Of dual_stage; the default is one weight per step, softmax, fused queries and all parts."""
ONE_BY_ONE = ("quality_gated", "staged_concat", "statistics_mlp")
"""With one modality, the model that is trained first; with several, what joins them."""


def build(name, k=2, **options):
    """A model in which every parameter matters: at zero or one, mistakes would not show."""
    torch.manual_seed(0)
    samples = synthetic_features.samples({"train": 12}, k, views=0, seed=4)
    model = FusionModel.build(
        name, {**synthetic_features.SMALL[name], **options}, FeatureSpec.of(synthetic_features.info(k))
    )
    model.fit_statistics(samples)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model, samples


def test_every_model_has_a_reference():
    assert set(REFERENCES) == set(MODELS.names())


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, {}) for name in REFERENCES),
        *(("dual_stage", variant) for variant in VARIANTS),
        *((name, {"modalities": chosen}) for name in ONE_BY_ONE for chosen in (["vision"], ["audio"], ["text"])),
        ("quality_gated", {"faces": "statistics"}),
        ("quality_gated", {"faces": "statistics", "modalities": ["vision"]}),
    ],
    ids=str,
)
@torch.no_grad()
def test_forward_equals_the_reference_loops(name, options):
    model, samples = build(name, **options)
    absent_modalities = ["vision", "audio", "text", "vision audio", "vision audio text", "text", ""]
    for sample, absent in zip(samples, absent_modalities, strict=False):
        for modality in absent.split():
            part = sample.modality(modality)
            empty = ModalityFeatures(part.sequence[:0], part.times[:0], part.pooled, part.quality[:0])
            setattr(sample, modality, empty)
    for sample in samples[5:8]:  # tracks that end long before the clip
        for modality in ("vision", "audio"):
            sample.modality(modality).times[:] *= 0.2
    output = model.eval()(collate(samples))
    assert output.prediction.std(dim=0).min() > 0.01  # not all clipped
    for i, sample in enumerate(samples):
        for own, expected in zip(output, REFERENCES[name](model, sample), strict=True):
            assert (own is None) == (expected is None)
            if own is not None:
                torch.testing.assert_close(own[i], expected, atol=1e-5, rtol=0, equal_nan=True)


@torch.no_grad()
def test_pool_steps_equals_adaptive_pooling_of_each_row():
    lengths = [1, 3, 16, 37, 0]
    mask = torch.arange(40)[None] < torch.tensor(lengths)[:, None]
    x = torch.randn(5, 40, 2) * mask[..., None]
    pooled = pool_steps(x, mask, 16)
    for row, length in enumerate(lengths[:4]):
        alone = torch.nn.functional.adaptive_avg_pool1d(x[row : row + 1, :length].transpose(1, 2), 16)
        torch.testing.assert_close(pooled[row], alone[0].T)
    assert (pooled[4] == 0).all()


@pytest.mark.parametrize("name", ["lstm_vad", "concat_lstm", "text_anchored"])
def test_linear_output_is_clipped_at_inference_alone(name):
    model, samples = build(name, k=2)
    batch = collate(samples)
    output_layer = model.head[-1]
    output_layer.weight.data.zero_()  # every prediction is the bias
    output_layer.bias.data = torch.tensor([-0.5, 1.5])
    assert model.train()(batch).prediction[0].tolist() == [-0.5, 1.5]
    assert run_model(model, samples, 4).predictions[0].tolist() == [0.0, 1.0]


@pytest.mark.parametrize("name", ["lstm_vad", "concat_lstm", "text_anchored"])
def test_squared_error_of_a_linear_output_has_the_gradient_of_its_distance(name):
    model, samples = build(name, k=1)
    batch = collate(samples)
    model.head[-1].weight.data.zero_()
    model.head[-1].bias.data.fill_(-0.5)
    batch.labels.fill_(0.0)
    criterion = FusionLoss(LossConfig(pcc=0.0, quality=0.0, memory=0), 1)
    output = model.train()(batch)
    loss = criterion(LossInputs(output.prediction, batch.labels, output.clip_weights(), batch.damaged), False, 0.0)
    loss["loss"].backward()
    assert loss["loss"].item() == pytest.approx(0.25)
    assert model.head[-1].bias.grad.item() == pytest.approx(-1.0)  # d (p - 0)^2 / dp = 2 p; clipped before, it is 0


@pytest.mark.parametrize("memory", [0, 8])
def test_correlation_losses_read_predictions_outside_the_range_as_they_are(memory):
    """x = (-3, -1, -2), all of which clip to 0, and y = (0, 1, 0): the centered x = (-1, 1, 0), y = (-1, 2, -1) / 3."""
    prediction = torch.tensor([[-3.0], [-1.0], [-2.0]], requires_grad=True)
    labels = torch.tensor([[0.0], [1.0], [0.0]])
    criterion = FusionLoss(LossConfig(mse=0.0, pcc=1.0, ramp_epochs=0, quality=0.0, memory=memory), 1)
    terms = criterion(LossInputs(prediction, labels, torch.zeros(3, 3), torch.zeros(3, 3).bool()), False, 1.0)
    pcc = 1 / (2 * 2 / 3) ** 0.5  # S_xy = 1, S_xx = 2, S_yy = 2 / 3
    assert terms["pcc"].item() == pytest.approx(1 - pcc)
    assert terms["ccc"].item() == pytest.approx(1 - 2 / (2 + 2 / 3 + 3 * (7 / 3) ** 2))
    terms["loss"].backward()
    # d PCC / dx = y / sqrt(S_xx S_yy) - PCC x / S_xx
    expected = [-(y / 3 * pcc - pcc * x / 2) for x, y in ((-1, -1), (1, 2), (0, -1))]
    assert prediction.grad[:, 0].tolist() == pytest.approx(expected, abs=1e-6)
    if memory:
        assert criterion.predictions[:3, 0].tolist() == [-3, -1, -2]


@pytest.mark.parametrize("name", ["late_fusion", "text_anchored"])
def test_width_must_be_a_multiple_of_the_heads(name):
    with pytest.raises(UserError, match=r"width 30 must be .*multiple of heads = 4"):
        FusionModel.build(name, {"width": 30, "heads": 4}, FeatureSpec.of(synthetic_features.info()))


def test_model_that_reads_audio_alone_never_loses_it_to_modality_dropout():
    with pytest.raises(UserError, match="modalities holds vision, text, but this model reads only audio"):
        FusionModel.build("lstm_vad", {"modalities": ["vision", "text"]}, FeatureSpec.of(synthetic_features.info()))
    model, samples = build("lstm_vad", modality_dropout=1.0)
    batch = collate(samples)
    inputs = model.train().inputs(batch)
    assert torch.equal(inputs["audio"].present, batch.audio.present)
    assert not inputs["vision"].present.any() and not inputs["text"].present.any()


@pytest.mark.parametrize("name", REFERENCES)
@pytest.mark.parametrize("k", [1, 9])
@pytest.mark.parametrize("labels", ["constant", "one row", "none"])
def test_labels_without_information_give_finite_losses(name, k, labels):
    model, samples = build(name, k)
    batch = collate(samples)
    batch.labels[:] = {"constant": 0.5, "one row": torch.nan, "none": torch.nan}[labels]
    if labels == "one row":
        batch.labels[3] = 0.2
    output = model(batch)
    branches = {} if output.branches is None else {"vision": 0.1, "audio": 0.1}
    config = LossConfig(pcc=0.5, ccc=0.5, ramp_epochs=0, branches=branches, penalty=0.1 * (output.penalty is not None))
    criterion, optimizer = FusionLoss(config, k), torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(3):
        if step == 1:  # a collapsed model with constant predictions
            for parameter in model.parameters():
                parameter.data.zero_()
        output = model.train()(batch)
        rows = (output.prediction, batch.labels, output.clip_weights(), batch.damaged)
        loss = criterion(LossInputs(*rows, output.branches, output.penalty), paired=False, epoch=step)["loss"]
        optimizer.zero_grad()
        loss.backward()
        assert torch.isfinite(loss) and all(torch.isfinite(p.grad).all() for p in model.parameters())
        optimizer.step()
    assert torch.isfinite(model.eval()(batch).prediction).all()
