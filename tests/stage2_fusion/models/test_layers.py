"""Layers: padding and missing modalities change nothing; exact zeros are exact; fast versions equal PyTorch."""

import pytest
import torch

from stage2_fusion.models.layers.decoder import DimensionDecoder
from stage2_fusion.models.layers.dropout import Dropout
from stage2_fusion.models.layers.quality import QualityWeights
from stage2_fusion.models.layers.temporal import TCN, GatedBiLSTM, LastState, grid_times, grid_weights, masked_mean


def ragged(lengths=(7, 1, 0, 4), width=8, padding=3):
    torch.manual_seed(0)
    steps = max(lengths) + padding
    mask = torch.arange(steps)[None] < torch.tensor(lengths)[:, None]
    return torch.randn(len(lengths), steps, width), mask


@pytest.mark.parametrize("layer", [TCN(8, 3, 3, 0.1), GatedBiLSTM(8, 2, 0.1)], ids=["tcn", "bilstm"])
def test_row_in_a_batch_equals_the_row_alone(layer):
    layer.eval()
    x, mask = ragged()
    out = layer(x, mask)  # the padding, here noise, must not matter
    assert (out[~mask] == 0).all()
    for row, length in enumerate(mask.sum(1).tolist()):
        if length:
            alone = layer(x[row : row + 1, :length], mask[row : row + 1, :length])
            torch.testing.assert_close(out[row, :length], alone[0], atol=1e-5, rtol=0)


def test_tcn_receptive_field_is_centered_and_follows_the_dilations():
    layer = TCN(8, 2, 3, 0.0).eval()
    x = torch.randn(1, 15, 8, requires_grad=True)
    layer(x, torch.ones(1, 15, dtype=torch.bool))[0, 7].sum().backward()
    reached = x.grad[0].abs().sum(1) > 0
    assert reached.nonzero().flatten().tolist() == list(range(4, 11))  # 1 + 2 steps to either side


def test_bilstm_gate_mixes_state_and_input():
    layer = GatedBiLSTM(8, 1, 0.0).eval()
    x, mask = ragged()
    torch.nn.init.zeros_(layer.gate.weight)
    torch.nn.init.constant_(layer.gate.bias, -50.0)  # closed gate: the input passes
    torch.testing.assert_close(layer(x, mask), x * mask[..., None])


def test_bilstm_begins_by_remembering():
    """A memory shrinks by about sigmoid(1 + b) at each step; |b| is at most PyTorch's bound for four states."""
    layer = GatedBiLSTM(8, 2, 0.0)
    forget = [
        (ih.chunk(4)[1] + hh.chunk(4)[1]).detach()
        for weights in layer.lstm.all_weights
        for ih, hh in [(weights[2], weights[3])]
    ]
    assert len(forget) == 4  # two layers, two directions
    kept = torch.stack(forget).sigmoid()
    bound = torch.tensor([1.0 - 0.5, 1.0 + 0.5]).sigmoid()
    assert (kept > bound[0]).all() and (kept < bound[1]).all()


def test_bilstm_and_its_gradient_equal_packed_sequences():
    layer = GatedBiLSTM(8, 2, 0.0)
    x, mask = ragged()
    x.requires_grad_()
    states = layer._states(x, mask)[mask]
    states.square().sum().backward()
    gradients = [x.grad, *(parameter.grad for parameter in layer.lstm.parameters())]
    x.grad = None
    layer.zero_grad()
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, mask.sum(1).clamp(min=1), True, enforce_sorted=False)
    reference = torch.nn.utils.rnn.pad_packed_sequence(layer.lstm(packed)[0], True, total_length=x.shape[1])[0][mask]
    reference.square().sum().backward()
    torch.testing.assert_close(states, reference)
    for one, other in zip(gradients, [x.grad, *(parameter.grad for parameter in layer.lstm.parameters())], strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_last_state_and_its_gradient_equal_packed_sequences():
    layer = LastState(8, 2, 0.0)
    x, mask = ragged()
    x = (x * mask[..., None]).requires_grad_()
    state = layer(x, mask)
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, mask.sum(1).clamp(min=1), True, enforce_sorted=False)
    reference = layer.lstm(packed)[1][0][-1] * mask.any(1, keepdim=True)
    torch.testing.assert_close(state, reference)
    assert (state[2] == 0).all() and not mask[2].any()  # a row without steps
    parameters = [x, *layer.parameters()]
    one, other = (torch.autograd.grad(y.square().sum(), parameters) for y in (state, reference))
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_last_state_runs_in_full_precision_under_autocast():
    """oneDNN has no LSTM in bf16 for CPUs with AVX2 alone."""
    layer = LastState(64, 2, 0.0)
    x, mask = ragged(width=64)
    with torch.autocast("cpu", torch.bfloat16):
        state = layer(x, mask)
    assert torch.equal(state, layer(x, mask))


def test_tcn_equals_its_conv1d_layers():
    layer = TCN(8, 2, 5, 0.0)
    x, mask = ragged((40, 31, 0))
    real = mask[..., None].float()
    expected = x * real
    for norm, conv, pointwise in zip(layer.norms, layer.convs, layer.pointwise, strict=True):
        y = conv((norm(expected) * real).transpose(1, 2)).transpose(1, 2)
        expected = (expected + pointwise(torch.nn.functional.gelu(y))) * real
    torch.testing.assert_close(layer(x, mask), expected, atol=1e-5, rtol=1e-4)


def test_dropout_drops_at_its_rate_and_keeps_the_mean():
    torch.manual_seed(0)
    layer, x = Dropout(0.3), torch.ones(401, 999, requires_grad=True)
    out = layer(x)
    kept = out != 0
    assert kept.float().mean().item() == pytest.approx(0.7, abs=0.003)  # 4 deviations
    assert kept[:, :500].float().mean(0).std().item() == pytest.approx((0.21 / 401) ** 0.5, rel=0.1)  # independent
    assert out[kept].unique().tolist() == pytest.approx([1 / 0.7], rel=1e-4)
    out.sum().backward()
    assert torch.equal(x.grad, out.detach())
    torch.manual_seed(0)
    assert torch.equal(layer(x), out)
    assert torch.equal(layer.eval()(x), x) and torch.equal(Dropout(0.0)(x), x)
    assert Dropout(0.3)(torch.ones(5, device="meta")).device.type == "meta"  # neither CPU nor CUDA


def test_masked_mean_of_nothing_is_zero():
    x, mask = ragged()
    mean = masked_mean(x, mask)
    torch.testing.assert_close(mean[0], x[0, :7].mean(0))
    assert (mean[2] == 0).all()


def test_grid_times_are_centers_of_equal_parts():
    assert grid_times(torch.tensor([4.0]), 4).tolist() == [[0.5, 1.5, 2.5, 3.5]]


def test_grid_averages_many_steps_and_repeats_few():
    duration = torch.tensor([4.0])
    grid = grid_times(duration, 4)
    ones = torch.ones(1, 80, dtype=torch.bool)
    times = (torch.arange(80)[None] + 0.5) / 20  # 20 per second
    weights, near = grid_weights(times, ones, grid, duration, 1.0)
    assert near.all()
    torch.testing.assert_close(weights.sum(2), torch.ones(1, 4))
    center = (weights @ times[..., None])[..., 0]
    torch.testing.assert_close(center[:, 1:3], grid[:, 1:3], atol=0.02, rtol=0)
    weights, _ = grid_weights(torch.tensor([[2.0]]), ones[:, :1], grid, duration, 9.0)
    torch.testing.assert_close(weights, torch.ones(1, 4, 1))


def test_grid_ignores_padding_and_steps_beyond_the_gap():
    duration = torch.tensor([8.0, 8.0])
    grid = grid_times(duration, 8)
    times = torch.tensor([[0.5, 1.5, 99.0], [0.0, 0.0, 0.0]])
    mask = torch.tensor([[True, True, False], [False, False, False]])
    weights, near = grid_weights(times, mask, grid, duration, 1.0)
    assert near[0].tolist() == [True, True, True, False, False, False, False, False]
    assert not near[1].any() and (weights[1] == 0).all() and (weights[..., 2] == 0).all()
    assert torch.isfinite(weights).all()


@pytest.mark.parametrize("weighting", ["learned", "uniform"])
@pytest.mark.parametrize("per", ["step", "clip"])
@pytest.mark.parametrize("normalizer", ["softmax", "sigmoid"])
def test_quality_weights(weighting, per, normalizer):
    torch.manual_seed(0)
    layer = QualityWeights(8, [2, 3, 1], weighting, per, normalizer)
    mask = torch.rand(5, 6, 3) > 0.4
    mask[0] = False
    mask[1, :, 2] = False
    weights = layer([torch.randn(5, 6, 8)] * 3, [torch.randn(5, 6, q) for q in (2, 3, 1)], mask)
    assert (weights[~mask] == 0).all() and (weights[mask] > 0).all()
    if normalizer == "softmax":
        torch.testing.assert_close(weights.sum(2), mask.any(2).float())
    if weighting == "uniform" and normalizer == "softmax":
        torch.testing.assert_close(weights, mask / mask.sum(2, keepdim=True).clamp(min=1))
    if per == "clip":
        both = mask[..., 0] & mask[..., 1]  # the ratio of two modalities is that of the clip
        for row in range(1, 5):
            ratios = (weights[row, ..., 0] / weights[row, ..., 1])[both[row]]
            torch.testing.assert_close(ratios, ratios[:1].expand_as(ratios))


def test_quality_signals_have_a_gradient_to_the_weights():
    layer = QualityWeights(4, [1, 1], "learned", "step", "softmax")
    features = [torch.zeros(1, 1, 4)] * 2
    mask = torch.ones(1, 1, 2, dtype=torch.bool)
    quality = [torch.zeros(1, 1, 1, requires_grad=True), torch.zeros(1, 1, 1)]
    layer(features, quality, mask)[..., 0].sum().backward()
    assert quality[0].grad.abs().item() > 0


def test_decoder_ignores_masked_steps():
    torch.manual_seed(0)
    decoder = DimensionDecoder(8, 3, 2, 2, 0.1).eval()
    memory, mask = ragged((7, 1, 4))
    prediction, attention = decoder(memory, mask)
    assert prediction.shape == (3, 3) and torch.isfinite(prediction).all()
    assert (attention.transpose(1, 2)[~mask] == 0).all()
    torch.testing.assert_close(attention.sum(2), torch.ones(3, 3))
    memory[~mask] = 1e3
    torch.testing.assert_close(decoder(memory, mask)[0], prediction)
    short = decoder(memory[2:, :4], mask[2:, :4])[0]
    torch.testing.assert_close(short, prediction[2:], atol=1e-5, rtol=0)


def test_decoder_is_finite_for_a_row_without_steps():
    decoder = DimensionDecoder(8, 2, 1, 2, 0.0).eval()
    memory, mask = ragged((0, 3))
    assert torch.isfinite(decoder(memory, mask)[0]).all()
