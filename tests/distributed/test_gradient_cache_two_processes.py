"""Every loss, tile and chunk on two real processes under DistributedDataParallel against one with the whole batch."""

import pytest
from helpers import contrastive_cases as cases
from helpers.two_processes import on_two_processes


def work(rank, world):
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    assert accelerator.num_processes == world
    return {case: cases.step(accelerator, *case) for case in cases.CASES}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return on_two_processes(work, tmp_path_factory.mktemp("two"))


@pytest.mark.parametrize("name, tile, chunks", cases.CASES)
def test_two_processes_equal_one(results, name, tile, chunks):
    wanted = cases.expected(name, chunks, world=2)
    for rank in range(2):
        cases.check(results[rank][name, tile, chunks], wanted)
