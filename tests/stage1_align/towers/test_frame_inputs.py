"""Frames relative to their clip, by hand."""

import pytest
import torch
from helpers.rounding import assert_same_up_to_rounding

from shared.errors import UserError
from stage1_align.towers.frame_inputs import motion, standardize
from stage1_align.towers.vision_open_clip import OpenClipVision


@pytest.fixture
def clips():
    """Real frames (N, 3, 8, 8) of clips of 3, 0 and 2 frames, and their mask (3, 4)."""
    mask = torch.arange(4) < torch.tensor([[3], [0], [2]])
    return torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64), mask


def test_motion_is_gray_its_difference_from_the_mean_picture_and_the_deviation_over_time(clips):
    x, mask = clips
    seen = motion(x, mask)
    for rows in (slice(0, 3), slice(3, 5)):
        gray = x[rows].mean(1)  # (T, 8, 8)
        unit = gray.std(unbiased=False) + 0.05
        expected = [
            (gray - gray.mean()) / unit,
            3 * (gray - gray.mean(0)) / unit,
            (3 * gray.std(0, unbiased=False) / unit).expand_as(gray),
        ]
        assert_same_up_to_rounding(seen[rows], torch.stack(expected, 1))


def test_who_it_is_shows_in_the_first_channel_alone(clips):
    """The same movement on another face of the same contrast."""
    x, mask = clips
    still = torch.zeros(5, 1, 8, 8, dtype=torch.float64)
    still[:, :, :4] = 0.2
    one, other = x / 10 + still, x / 10 + still.flip(2)
    a, b = motion(one, mask), motion(other, mask)
    assert not torch.allclose(a[:, 0], b[:, 0], atol=0.1)
    torch.testing.assert_close(a[:, 1:], b[:, 1:], rtol=0.05, atol=0.01)


def test_standardized_clips_have_mean_0_and_keep_dark_ones_dark(clips):
    x, mask = clips
    for rows in (slice(0, 3), slice(3, 5)):
        expected = (x[rows] - x[rows].mean()) / (x[rows].std(unbiased=False) + 0.05)
        assert_same_up_to_rounding(standardize(x, mask)[rows], expected)


@pytest.mark.parametrize(
    "options", [{"motion": True}, {"standardize": True}, {}], ids=["motion", "standardize", "plain"]
)
def test_chosen_frames_give_the_steps_that_they_have_among_all_frames(options):
    """The clip decides how a frame is normalized, whichever of its frames go through the trunk."""
    torch.manual_seed(0)
    small = {"vision_cfg": {"timm_model_name": "emit_small_cnn", "timm_proj": "linear"}, "image_size": 16}
    tower = OpenClipVision.from_options({**small, **options}, 8).eval()
    frames, mask = torch.randint(0, 256, (3, 4, 3, 16, 16)), torch.arange(4) < torch.tensor([[4], [0], [2]])
    chosen = torch.tensor([[0, 1, 0, 1], [0, 0, 0, 0], [1, 0, 1, 0]]).bool()  # the last is no real frame
    whole, part = tower(frames, mask), tower(frames, mask, chosen)
    assert torch.equal(part.mask, chosen & mask) and not whole.pooled.equal(part.pooled)
    assert_same_up_to_rounding(part.sequence[part.mask], whole.sequence[part.mask])
    assert not part.sequence[~part.mask].any()
    for row, steps in ((0, [1, 3]), (2, [0])):
        pooled = torch.nn.functional.normalize(tower.project(whole.sequence[row, steps].mean(0)), dim=0)  # (8,)
        assert_same_up_to_rounding(part.pooled[row], pooled)


def test_motion_is_refused_for_pretrained_weights(tmp_path):
    with pytest.raises(UserError, match="motion replaces the colors that pretrained weights expect"):
        OpenClipVision.from_options({"motion": True, "pretrained": str(tmp_path)}, 8)
