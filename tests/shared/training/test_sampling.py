import numpy as np
import pytest
import torch

from shared.errors import UserError
from shared.training.sampling import batch_indices, local_rows, seed_everything, steps_per_epoch


def test_random_state_is_a_function_of_the_seed_parts():
    seed_everything("a", 1)
    first = torch.rand(3)
    seed_everything("a", 2)
    assert not torch.equal(first, torch.rand(3))
    seed_everything("a", 1)
    assert torch.equal(first, torch.rand(3))


def test_processes_together_see_the_batch_of_one_process():
    whole = batch_indices(20, 6, seed=0, epoch=3, step=1, rank=0, world=1)
    shares = [batch_indices(20, 6, seed=0, epoch=3, step=1, rank=rank, world=2) for rank in range(2)]
    np.testing.assert_array_equal(np.concatenate(shares), whole)


def test_batch_that_cannot_be_shared_is_refused():
    with pytest.raises(UserError, match="a batch of 9 cannot be shared by 2 processes: make it a multiple of 2"):
        local_rows(9, 0, 2)


@pytest.mark.parametrize(
    ("count", "world", "repair"),
    [(12, "1", "give --train.batch_size 12"), (13, "2", "give --train.batch_size 12"), (1, "2", "give more clips")],
)
def test_a_batch_larger_than_the_data_names_the_value_to_set(count, world, repair, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", world)
    with pytest.raises(UserError, match=f"{count} training clips? (is|are) fewer than one batch of 64: {repair}$"):
        steps_per_epoch(count, 64)
