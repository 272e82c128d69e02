"""Every fusion model: any number of dimensions, missing modalities, batch equal to single, hiding of modalities."""

import pytest
import torch
from helpers import norm_gradients, synthetic_features

from shared.dataset.clip import MODALITIES
from shared.errors import UserError
from stage2_fusion.data.batches import collate
from stage2_fusion.models import MODELS
from stage2_fusion.models.base import FeatureSpec, FusionModel, drop_modalities


def model_and_batch(name, k=2, count=10, **options):
    torch.manual_seed(0)
    samples = synthetic_features.samples({"train": count}, k, views=0)
    model = FusionModel.build(
        name, {**synthetic_features.SMALL[name], **options}, FeatureSpec.of(synthetic_features.info(k))
    )
    model.fit_statistics(samples)
    return model, samples


@pytest.mark.parametrize("name", MODELS.names())
@pytest.mark.parametrize("k", [1, 9])
def test_any_number_of_dimensions(name, k):
    model, samples = model_and_batch(name, k)
    inferred = model.eval()(collate(samples)).prediction
    assert ((inferred >= 0) & (inferred <= 1)).all()
    output = model.train()(collate(samples))
    assert output.prediction.shape == (10, k)
    added = [part for part in (output.branches, output.penalty) if part is not None]
    sum(part.nan_to_num().sum() for part in (output.prediction, *added)).backward()
    assert all(p.grad is not None for p in model.parameters())  # DDP waits for every parameter


@pytest.mark.parametrize("name", MODELS.names())
def test_clip_in_a_batch_equals_the_clip_alone(name):
    model, samples = model_and_batch(name)
    model.eval()
    together = model(collate(samples))
    for i, sample in enumerate(samples):
        alone = model(collate([sample]))
        torch.testing.assert_close(alone.prediction[0], together.prediction[i], atol=1e-5, rtol=0)
        torch.testing.assert_close(alone.weights[0], together.weights[i], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", MODELS.names())
def test_absent_modalities_have_no_weight_and_no_influence(name):
    model, _ = model_and_batch(name)
    model.eval()
    batch = collate(synthetic_features.samples({"train": 4}, views=0, seed=3))
    for modality in MODALITIES:
        batch.modality(modality).present[:] = modality == "audio"
        batch.modality(modality).mask &= batch.modality(modality).present[:, None]
    batch.audio.present[0] = False
    batch.audio.mask[0] = False
    before = model(batch)
    assert (before.weights[..., [0, 2]] == 0).all() and (before.weights[0] == 0).all()
    assert torch.isfinite(before.prediction).all()
    torch.testing.assert_close(before.clip_weights()[1:, 1], torch.ones(3))
    batch.vision.x += 100.0
    batch.text.pooled += 100.0
    batch.vision.quality -= 100.0
    torch.testing.assert_close(model(batch).prediction, before.prediction)


@pytest.mark.parametrize("name", MODELS.names())
def test_padding_changes_nothing(name):
    model, samples = model_and_batch(name)
    model.eval()
    batch = collate(samples)
    before = model(batch)
    for modality in MODALITIES:
        part = batch.modality(modality)
        assert not part.mask.all()
        for key in ("x", "quality", "times"):
            getattr(part, key)[~part.mask] = 1e3
    after = model(batch)
    for old, new in zip(before, after, strict=True):
        if old is not None:
            torch.testing.assert_close(new, old, equal_nan=old is before.branches)
    assert torch.isfinite(after.weights).all() and (after.weights >= 0).all() and (after.weights <= 1).all()


@pytest.mark.parametrize("name", MODELS.names())
def test_modalities_outside_the_options_are_ignored(name):
    model, samples = model_and_batch(name, modalities=["audio"])
    model.eval()
    batch = collate(samples)
    before = model(batch)
    assert (before.weights[..., [0, 2]] == 0).all() and (before.weights[..., 1] > 0).any()
    for modality in ("vision", "text"):
        batch.modality(modality).x += 100.0
        batch.modality(modality).pooled += 100.0
    torch.testing.assert_close(model(batch).prediction, before.prediction)
    batch.audio.x += 1.0
    assert not torch.allclose(model(batch).prediction, before.prediction)


def test_untrained_models_predict_about_the_mean_label():
    for name in MODELS.names():
        model, samples = model_and_batch(name, count=40)
        prediction = model.eval()(collate(samples)).prediction.mean(0)
        mean = torch.tensor([s.labels.tolist() for s in samples]).mean(0)
        assert (prediction - mean).abs().max() < 0.2


def test_statistics_cover_the_real_steps_only():
    model, samples = model_and_batch("concat")
    steps = torch.cat([torch.tensor(s.audio.sequence, dtype=torch.float64) for s in samples])
    torch.testing.assert_close(model.audio_x_mean.double(), steps.mean(0), atol=1e-6, rtol=0)
    torch.testing.assert_close(1 / model.audio_x_scale.double(), steps.std(0, correction=0), atol=1e-6, rtol=1e-5)


def test_modality_dropout_hides_some_but_never_the_last():
    torch.manual_seed(0)
    present = torch.rand(500, 3) > 0.3
    for rate in (0.3, 0.99, 1.0):
        kept = drop_modalities(present, rate)
        assert not (kept & ~present).any()
        assert torch.equal(kept.any(1), present.any(1))
        assert kept.sum() < present.sum()
    assert torch.equal(drop_modalities(present, 0.0), present)
    torch.manual_seed(5)
    first = drop_modalities(present, 0.3)
    torch.manual_seed(5)
    assert torch.equal(first, drop_modalities(present, 0.3))


def test_softmax_weights_sum_to_one():
    model, samples = model_and_batch("dual_stage")
    output = model.eval()(collate(samples))
    torch.testing.assert_close(output.weights.sum(2), output.step_mask.float())
    assert output.attention.shape == (10, 2, 8)


@pytest.mark.parametrize(
    "ablation",
    [{"tcn_layers": 0}, {"lstm_layers": 0}, {"decoder_layers": 0}, {"queries": "text"}, {"queries": "learned"}],
    ids=str,
)
def test_dual_stage_works_without_any_of_its_parts(ablation):
    model, samples = model_and_batch("dual_stage", **ablation)
    whole, _ = model_and_batch("dual_stage")
    output = model(collate(samples))
    output.prediction.sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    assert (output.attention is None) == ("decoder_layers" in ablation)
    count = [sum(p.numel() for p in m.parameters()) for m in (model, whole)]
    assert count[0] == count[1] if ablation == {"queries": "text"} else count[0] < count[1]


def test_dropped_input_channels_are_dropped_at_all_steps_of_a_clip():
    options = {"dropout": 0.0, "modality_dropout": 0.0, "input_dropout": 0.5}
    model, samples = model_and_batch("dual_stage", **options)
    read = {}
    for name in MODALITIES:
        model.projections[name].register_forward_hook(lambda _, x, y, name=name: read.update({name: x[0]}))
    batch = collate(samples)
    model.eval()(batch)
    whole = dict(read)
    model.train()(batch)
    for name, x in read.items():
        kept = torch.isclose(x, 2 * whole[name]) & (whole[name] != 0)  # (B, T, C)
        real = batch.modality(name).mask[..., None] & (whole[name] != 0)  # (B, T, C)
        assert ((kept == real).all(dim=1) | ~kept.any(dim=1)).all() and (kept | (x == 0)).all()
        assert 0 < kept.sum() < real.sum()


def test_wrong_option_is_named():
    with pytest.raises(UserError, match="fusion model concat has no option 'widht': did you mean 'width'"):
        FusionModel.build("concat", {"widht": 3}, FeatureSpec.of(synthetic_features.info()))
    with pytest.raises(UserError, match=r"fusion model concat.*width"):
        FusionModel.build("concat", {"width": "wide"}, FeatureSpec.of(synthetic_features.info()))
    for queries in ("learned", "text"):
        with pytest.raises(UserError, match=f"queries {queries}.*decoder_layers"):
            FusionModel.build("dual_stage", {"queries": queries}, FeatureSpec.of(synthetic_features.info()))


@pytest.mark.parametrize("name", MODELS.names())
def test_norms_have_the_right_gradients(name):
    model, samples = model_and_batch(name)
    norms = [module for _, module in norm_gradients.norms(model)]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    for training, rows in ((True, samples), (False, samples[:1])):
        model.train(training)

        def loss(rows=rows):
            torch.manual_seed(1)
            return model(collate(rows)).prediction.sum()

        assert bool(norm_gradients.assert_right_gradients(model, loss)) == bool(norms)


def test_norm_of_a_users_model_has_the_right_gradients():
    spec = FeatureSpec.of(synthetic_features.info(1))
    model = FusionModel.build(f"{__name__}:WithBatchNorm", {}, spec).eval()
    gradient = torch.randn(2, 4, 6, 1)
    x = torch.randn(2, 1, 6, 4).transpose(1, 3)
    model.norm(x).backward(gradient)
    torch.testing.assert_close(model.norm.weight.grad, (x * gradient).sum((0, 2, 3)), rtol=1e-4, atol=1e-4)


class WithBatchNorm(MODELS.get("concat")):
    def __init__(self, options, spec):
        super().__init__(options, spec)
        self.norm = torch.nn.BatchNorm2d(4)
