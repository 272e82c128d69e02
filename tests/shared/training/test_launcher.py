"""What comes from the launcher and the environment: processes, engine; nothing else."""

import pytest
import torch
from accelerate.state import AcceleratorState

from shared.errors import UserError
from shared.training.distributed import start_accelerator


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4", "--train.batch_size counts all clips of a step"),
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "many", "--train.batch_size"),
        ("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR", "--train.compile"),
        ("ACCELERATE_USE_MEGATRON_LM", "true", "not supported"),
        ("ACCELERATE_USE_PARALLELISM_CONFIG", "true", "not supported"),
        ("ACCELERATE_USE_FSDP", "1", "write true or false"),
        ("ACCELERATE_USE_CPU", "x", "write true or false"),
        ("ACCELERATE_MIXED_PRECISION", "fp8", "no, bf16 and fp16"),
        ("WORLD_SIZE", "two", "not a whole number"),
        ("WORLD_SIZE", "2", "without RANK, MASTER_ADDR, MASTER_PORT: "),
        ("ACCELERATE_TORCH_DEVICE", "cuda:99", "the devices here are cpu"),
        ("ACCELERATE_TORCH_DEVICE", "meta", "the devices here are cpu"),
        ("ACCELERATE_TORCH_DEVICE", "", "the devices here are cpu"),
    ],
)
def test_variable_that_would_change_the_numbers_is_refused(name, value, told, monkeypatch):
    monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=f"^{name}={value} .*{told}.*; remove it$"):
        start_accelerator("no")


def test_rank_beyond_the_processes_is_refused(monkeypatch):
    for name, value in (("WORLD_SIZE", "2"), ("RANK", "2"), ("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", "1")):
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=r"^RANK=2 .* 2 processes of WORLD_SIZE"):
        start_accelerator("no")


def test_what_the_launcher_always_sets_is_taken(monkeypatch):
    for name, value in (
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1"),
        ("ACCELERATE_DYNAMO_BACKEND", "NO"),
        ("ACCELERATE_DYNAMO_MODE", "default"),
        ("ACCELERATE_MIXED_PRECISION", "no"),
        ("ACCELERATE_USE_CPU", "True"),
        ("ACCELERATE_USE_FSDP", ""),
        ("ACCELERATE_TORCH_DEVICE", "cpu"),
    ):
        monkeypatch.setenv(name, value)
    accelerator = start_accelerator("no")
    parameter = torch.nn.Parameter(torch.ones(()))
    accelerator.backward(parameter * 3)
    assert parameter.grad == 3  # not divided by a number of accumulation steps
    AcceleratorState._reset_state()
