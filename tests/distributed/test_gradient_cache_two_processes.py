"""Every loss, tile and number of chunks, on two real processes under DistributedDataParallel."""

import pytest
from accelerate import Accelerator
from helpers import contrastive_cases as cases
from helpers.two_processes import on_two_processes

Results = list[dict[tuple[str, int, int], cases.Result]]


def work(rank: int, world: int) -> dict[tuple[str, int, int], cases.Result]:
    accelerator = Accelerator(cpu=True)
    assert accelerator.num_processes == world
    return {case: cases.step(accelerator, *case) for case in cases.CASES}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return on_two_processes(work, tmp_path_factory.mktemp("two"))


@pytest.mark.parametrize("name, tile, chunks", cases.CASES)
def test_two_processes_equal_one_with_the_whole_batch(results: Results, name: str, tile: int, chunks: int):
    wanted = cases.expected(name, chunks, world=2)
    for rank in range(2):
        cases.check(results[rank][name, tile, chunks], wanted)
