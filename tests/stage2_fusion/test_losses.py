"""The loss of stage 2: values by hand, gradients against autograd of the direct formula."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from shared.errors import UserError
from shared.metrics import ccc
from stage2_fusion.config import LossConfig
from stage2_fusion.losses import (
    FusionLoss,
    LossInputs,
    branch_correlation_loss,
    branch_loss,
    correlations,
    masked_mse,
    quality_ranking,
)

NAN = float("nan")


def test_mse_ignores_missing_labels():
    prediction = torch.tensor([[0.5, 0.2], [0.1, 0.9]], requires_grad=True)
    labels = torch.tensor([[0.3, NAN], [0.1, 0.5]])
    loss = masked_mse(prediction, labels)
    assert loss.item() == pytest.approx((0.04 + 0.0 + 0.16) / 3)
    loss.backward()
    assert prediction.grad[0, 1] == 0 and torch.isfinite(prediction.grad).all()
    assert masked_mse(prediction, torch.full((2, 2), NAN)).item() == 0


def test_correlations_by_hand_with_missing_labels_and_constants():
    prediction = torch.tensor([[1.0, 0.4, 1.0], [2.0, 0.4, 2.0], [9.0, 0.4, 3.0], [3.0, 0.4, 4.0]], requires_grad=True)
    labels = torch.tensor([[1.0, 0.1, 0.0], [3.0, 0.2, 0.0], [NAN, 0.3, 0.0], [2.0, 0.4, 0.0]])
    values, concordance, varies = correlations(prediction, labels)
    torch.testing.assert_close(values, torch.tensor([0.5, 0.0, 0.0]))
    # 1, 2, 3 against 1, 3, 2: covariance 1/3, variances 2/3, equal means
    torch.testing.assert_close(concordance, torch.tensor([0.5, 0.0, 0.0]))
    assert varies.tolist() == [True, False, False]
    (values + concordance).sum().backward()
    assert torch.isfinite(prediction.grad).all()
    assert (prediction.grad[:, 1:] == 0).all() and prediction.grad[2, 0] == 0


def test_pcc_gradient_equals_the_direct_formula():
    torch.manual_seed(0)
    x, y = torch.rand(12, 1, dtype=torch.float32, requires_grad=True), torch.rand(12, 1)
    correlations(x, y)[0].sum().backward()
    z = x.detach().double().requires_grad_()
    torch.corrcoef(torch.stack([z[:, 0], y[:, 0].double()]))[0, 1].backward()
    torch.testing.assert_close(x.grad.double(), z.grad, atol=1e-5, rtol=1e-4)


def test_ccc_equals_the_metric():
    torch.manual_seed(0)
    x, y = torch.rand(12, 2), 0.3 * torch.rand(12, 2) + 0.2
    expected = [ccc(x[:, k].numpy(), y[:, k].numpy()) for k in range(2)]
    assert correlations(x, y)[1].tolist() == pytest.approx(expected, abs=1e-6)


def test_branches_by_hand():
    branches = torch.full((2, 3, 1), NAN)
    branches[:, 1, 0] = torch.tensor([0.5, 2.5])
    branches[0, 0, 0] = 0.9
    labels = torch.tensor([[0.1], [0.5]])
    loss = branch_loss(branches, labels, {"audio": 0.5})  # vision's own prediction has no weight
    assert loss.item() == pytest.approx(0.5 * (0.5 * 0.4**2 + (2.0 - 0.5)) / 2)
    assert branch_loss(branches, labels, {"vision": 2.0, "text": 9.0}).item() == pytest.approx(2 * 0.5 * 0.8**2)


def test_correlation_of_branches_by_hand():
    branches = torch.full((4, 3, 2), NAN)
    branches[:3, 1, 0] = torch.tensor([1.0, 2.0, 3.0])  # of the fourth clip, the modality is absent
    branches[:3, 1, 1] = 0.5
    branches[:, 2] = torch.tensor([[0.0], [1.0], [0.0], [1.0]])
    labels = torch.tensor([[1.0, 0.1], [3.0, 0.2], [2.0, 0.3], [9.0, NAN]])
    branches.requires_grad_()
    # 1, 2, 3 against 1, 3, 2: PCC 0.5; the second dimension does not vary, so the first alone counts
    loss = branch_correlation_loss(branches, labels, {"audio": 0.5})
    assert loss.item() == pytest.approx(0.5 * (1 - 0.5))
    loss.backward()
    assert (branches.grad.nan_to_num(7.0)[3, 1] == 0).all() and (branches.grad.nan_to_num(7.0)[:, [0, 2]] == 0).all()
    assert branches.grad[:3, 1, 0].abs().min() > 0 and (branches.grad[:3, 1, 1] == 0).all()
    # text has all clips: 0, 1, 0, 1 against 1, 3, 2, 9; of the second dimension three: 0, 1, 0 against 0.1, 0.2, 0.3
    first = np.corrcoef([0, 1, 0, 1], [1, 3, 2, 9])[0, 1]
    assert branch_correlation_loss(branches, labels, {"text": 1.0}).item() == pytest.approx(
        1 - (first + 0.0) / 2, abs=1e-6
    )
    inputs = LossInputs(labels, labels, torch.ones(4, 3), torch.zeros(4, 3, dtype=torch.bool), branches)
    config = LossConfig(mse=0.0, pcc=0.0, quality=0.0, memory=0, branches={"audio": 0.5}, branch_loss="pcc")
    assert FusionLoss(config, 2)(inputs, False, 0.0)["loss"].item() == pytest.approx(0.25)


def test_weight_of_a_term_that_the_model_lacks_is_refused():
    inputs = LossInputs(*torch.rand(4, 4, 2)[:2], torch.ones(4, 3), torch.zeros(4, 3, dtype=torch.bool))
    for config in (LossConfig(branches={"audio": 1.0}), LossConfig(penalty=0.1)):
        with pytest.raises(UserError, match="this model"):
            FusionLoss(config, 2)(inputs, False, 1.0)
    inputs = inputs._replace(branches=torch.rand(4, 3, 2), penalty=torch.tensor([1.0, 2.0, 3.0, 6.0]))
    plain = FusionLoss(LossConfig(), 2)(inputs, False, 1.0)
    more = FusionLoss(LossConfig(branches={"text": 1.0}, penalty=0.1), 2)(inputs, False, 1.0)
    torch.testing.assert_close(more["loss"], plain["loss"] + more["branches"] + 0.3)


def test_ranking_counts_only_pairs_with_the_same_modalities():
    weights = torch.tensor([[0.4, 0.6, 0.0], [0.3, 0.7, 0.0], [0.5, 0.5, 0.0], [1.0, 0.0, 0.0]], requires_grad=True)
    damaged = torch.tensor([[False] * 3, [True, False, False], [False] * 3, [False, True, False]])
    loss = quality_ranking(weights, damaged, 0.5)  # in the second pair, the damaged modality is absent
    assert loss.item() == pytest.approx(math.log(0.3) - math.log(0.4) + 0.5, rel=1e-5)
    loss.backward()
    assert weights.grad[0, 0] < 0 < weights.grad[1, 0] and (weights.grad[2:] == 0).all()
    assert quality_ranking(weights, torch.zeros(4, 3, dtype=torch.bool), 0.5).item() == 0


def test_ranking_asks_for_no_more_than_its_margin():
    weights = torch.tensor([[0.6, 0.5, 0.5], [0.2, 0.5, 0.5]], requires_grad=True)  # lower by a factor of 3
    damaged = torch.tensor([[False] * 3, [True, False, False]])
    quality_ranking(weights, damaged, 1.0).backward()
    assert weights.grad is not None and not weights.grad.any()
    assert quality_ranking(weights, damaged, 1.2).item() == pytest.approx(1.2 - math.log(3), rel=1e-5)


def terms_of(criterion: FusionLoss, prediction: Tensor, labels: Tensor, epoch: float = 10.0) -> dict[str, Tensor]:
    rows = len(prediction)
    undamaged = torch.zeros(rows, 3, dtype=torch.bool)
    return criterion(LossInputs(prediction, labels, torch.ones(rows, 3), undamaged), False, epoch)


def test_correlation_covers_batch_and_memory():
    torch.manual_seed(0)
    predictions, labels = torch.rand(12, 2), torch.rand(12, 2)
    criterion = FusionLoss(LossConfig(memory=8), 2)
    terms_of(criterion, predictions[:4], labels[:4])
    terms_of(criterion, predictions[4:8], labels[4:8])
    batch = predictions[8:].clone().requires_grad_()
    loss = terms_of(criterion, batch, labels[8:])["pcc"]
    whole = predictions.clone().requires_grad_()
    expected = (1 - correlations(whole, labels)[0]).mean()
    torch.testing.assert_close(loss, expected)
    (gradient,) = torch.autograd.grad(loss, batch)
    (reference,) = torch.autograd.grad(expected, whole)
    torch.testing.assert_close(gradient, 3 * reference[8:])  # 4 of 12 rows stand for all 12
    assert torch.equal(criterion.predictions, predictions[[8, 9, 10, 11, 4, 5, 6, 7]])  # the oldest four are gone


def test_terms_add_up_and_the_correlation_is_ramped():
    torch.manual_seed(0)
    prediction, labels = torch.rand(8, 2), torch.rand(8, 2)
    for epoch, ramp in ((0.0, 0.0), (1.0, 0.25), (4.0, 1.0), (9.0, 1.0)):
        terms = terms_of(FusionLoss(LossConfig(mse=2.0, pcc=0.3, ccc=0.7, ramp_epochs=4), 2), prediction, labels, epoch)
        expected = 2 * terms["mse"] + ramp * (0.3 * terms["pcc"] + 0.7 * terms["ccc"])
        torch.testing.assert_close(terms["loss"], expected)


def test_constant_labels_give_no_correlation_and_no_nan():
    prediction = torch.full((6, 2), 0.3, requires_grad=True)
    terms = terms_of(FusionLoss(LossConfig(memory=0), 2), prediction, torch.zeros(6, 2))
    terms["loss"].backward()
    assert terms["pcc"].item() == 0 and torch.isfinite(prediction.grad).all()
