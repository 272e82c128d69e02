"""Every loss, tile and chunk on two real processes under DistributedDataParallel against one with the whole batch."""

import os

import contrastive_cases as cases
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def work(rank, world, folder):
    ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
    os.environ |= {name: str(value) for name, value in ranks.items()}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}  # Accelerate asks for them; the store is a file
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    assert accelerator.num_processes == world
    torch.save({case: cases.step(accelerator, *case) for case in cases.CASES}, f"{folder}/{rank}.pt")
    dist.barrier()
    os._exit(0)  # gloo's threads outlive their group, and the interpreter's clean-up now and then aborts on them


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    mp.spawn(work, (2, folder), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("name, tile, chunks", cases.CASES)
def test_two_processes_equal_one(results, name, tile, chunks):
    wanted = cases.expected(name, chunks, world=2)
    for rank in range(2):
        cases.check(results[rank][name, tile, chunks], wanted)
