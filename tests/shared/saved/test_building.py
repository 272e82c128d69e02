"""The estimate of how large the result of an operation can be."""

import subprocess
import sys

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from shared.saved import building

X, COLUMN, ROW, IMAGE = torch.ones(3, 4), torch.ones(5, 1), torch.ones(1, 6), torch.ones(1, 2, 5, 5)
OPERATIONS = {
    "sizes": lambda: [torch.zeros(7, 9), torch.randn(5), torch.full((3, 3), 0.5), X.new_zeros(9, 9), torch.eye(4, 9)],
    "ranges": lambda: [
        torch.arange(9),
        torch.arange(0, 1, 0.01),
        torch.arange(-5.0, 5.0, 0.25),
        torch.linspace(0, 1, 9),
    ],
    "broadcast": lambda: [
        COLUMN + ROW,
        torch.where(COLUMN > 0, ROW, X[:1, :1]),
        COLUMN * 2.0,
        torch.maximum(ROW, COLUMN),
    ],
    "products": lambda: [
        COLUMN @ ROW,
        torch.addmm(ROW, COLUMN, ROW),
        torch.outer(X[0], X[1]),
        X @ X.T,
        COLUMN[None] @ ROW,
        X.expand(2, 3, 4) @ X.T.expand(2, 4, 3),
        torch.baddbmm(torch.ones(3), X[None], X.T[None]),
    ],
    "windows": lambda: [
        torch.hann_window(9),
        torch.nn.functional.unfold(IMAGE, 3, padding=2),
        X.unfold(1, 3, 1).clone(),
    ],
    "convolutions": lambda: [
        torch.conv2d(IMAGE, torch.ones(7, 2, 1, 1), padding=3),
        torch.conv2d(IMAGE, torch.ones(4, 1, 2, 2), stride=2, dilation=2, groups=2),
        torch.conv1d(IMAGE[:, :, 0], torch.ones(6, 2, 3), padding=1),
        torch.conv_transpose2d(IMAGE, torch.ones(2, 3, 3, 3), stride=3, output_padding=2),
        torch.conv_transpose1d(IMAGE[:, :, 0], torch.ones(2, 4, 2), stride=2, dilation=3, groups=2),
    ],
    "attention": lambda: [torch.nn.functional.scaled_dot_product_attention(IMAGE, *[IMAGE[..., :3, :]] * 2)],
    "copies": lambda: [
        X.repeat(5, 3),
        X.expand(6, 3, 4).clone(),
        torch.cat([X, X, X]),
        torch.stack([X] * 5),
        X[[0] * 9],
        X.index_add(0, torch.tensor([0, 0, 0, 0]), torch.ones(4, 4)),
    ],
    "padding": lambda: [
        torch.nn.functional.pad(X, (2, 3, 4, 5)),
        torch.nn.functional.pad(X[None], (2, 2), mode="reflect"),
        torch.nn.functional.pad(IMAGE, (1, 2, 3, 4), mode="replicate"),
        torch.nn.functional.pad(X, (-1, 2)),
    ],
    "reductions": lambda: [X.sum(), X.mean(0), X.amax(1), X.cumsum(1), X.norm(), X.any(), X.var(0), X.softmax(1)],
    "in place": lambda: [X.clone().add_(1), X.clone().uniform_(), torch.ones(0).resize_(30)],
    "resized": lambda: [
        torch.nn.functional.interpolate(IMAGE, size=(9, 9)),
        torch.nn.functional.one_hot(torch.arange(3), 9),
    ],
    "norms": lambda: [
        torch.layer_norm(X, (4,)),
        torch.group_norm(IMAGE, 1),
        torch.batch_norm(X, None, None, None, None, True, 0.1, 1e-5, False),
    ],
}


@pytest.mark.parametrize("kind", OPERATIONS)
def test_no_result_is_larger_than_estimated(kind):
    seen = []

    class Compare(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            largest = max((part.numel() for part in tree_leaves(result) if isinstance(part, torch.Tensor)), default=0)
            seen.append((str(func), largest, building._at_most(func, args)))
            return result

    with Compare():
        OPERATIONS[kind]()
    assert seen and not [entry for entry in seen if entry[1] > entry[2]]


def test_estimate_leaves_the_compiler_of_pytorch_alone():
    code = (
        "import sys, torch\n"
        "from shared.saved.building import _Bounds\n"
        "with _Bounds(10**6):\n"
        "    layer = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.LayerNorm(8), torch.nn.GELU())\n"
        "    layer(torch.randn(2, 8) * 0.5).cumsum(0)\n"
        "    x = torch.nn.Conv2d(60, 80, 1)(torch.randn(1, 60, 80, 80))\n"
        "    x = torch.nn.functional.pad(x[0, :3], (70, 70), mode='reflect')\n"
        "    torch.nn.functional.scaled_dot_product_attention(x[None], x[None], x[None]) @ x[None].mT\n"
        "print({'torch._dynamo', 'sympy'} & sys.modules.keys())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"
