"""A small contrastive step with dropout: every loss, tile and number of chunks, at any number of processes, against
autograd through the reference losses in one process."""

import itertools
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from helpers.contrastive_reference import LOSSES, reference
from torch import Tensor, nn

from stage1_align.config import LossConfig
from stage1_align.data.pairs import PairBatch
from stage1_align.encoders import AlignedEncoders
from stage1_align.gradient_cache import cached_backward, split_into_chunks
from stage1_align.model import ContrastiveModel
from stage1_align.towers.base import Encoded

B, D = 12, 6
WEIGHTS = {"vision_text": 1.0, "audio_text": 0.5, "text_text": 0.7, "vision_audio": 0.4, "audio_labels": 0.3}
TILES = (1, 4, 64)
CHUNKS = (0, 1, 3)  # 0: without gradient cache
CASES = list(itertools.product(LOSSES, TILES, CHUNKS))


@dataclass
class Result:
    """What a step leaves."""

    loss: Tensor
    encoder_grad: Tensor
    """The gradients of all tower parameters, flattened."""
    scalar_grads: dict[str, Tensor]
    """Of temperatures and biases."""
    next_random: Tensor
    """The next number that the random generator draws."""


class Tower(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(width, 16), nn.GELU(), nn.Dropout(0.3), nn.Linear(16, D))

    def blocks(self) -> list[nn.Module]:
        return []

    def forward(self, x: Tensor, mask: Tensor) -> Encoded:
        pooled = nn.functional.normalize(self.net(x).float(), dim=-1) * mask.any(1, keepdim=True)  # (B, D)
        return Encoded(pooled, x[:, None], mask, None)


def make_model(name: str, tile: int = 1024) -> ContrastiveModel:
    torch.manual_seed(0)
    encoders = AlignedEncoders(Tower(5), Tower(7), Tower(9), embed_dim=D)
    options = {**LOSSES[name], "pairs": WEIGHTS, "initial_scale": 9.0, "initial_bias": -2.0, "tile": tile}
    return ContrastiveModel(encoders, LossConfig(**options), ["transcript", "labels"])


def make_batch(rows: slice = slice(None)) -> PairBatch:
    """Two texts per clip; some clips lack a modality, some texts are equal, some labels are unknown."""
    generator = torch.Generator().manual_seed(1)
    text_id, inputs = torch.randint(0, 9, (2, B), generator=generator)[:, rows], {}
    for modality, width, kinds in (("vision", 5, 1), ("audio", 7, 1), ("text", 9, 2)):
        x = torch.randn(kinds, B, width, generator=generator)
        mask = (torch.rand(kinds, B, generator=generator) > 0.15)[..., None].expand(-1, -1, 3)
        inputs[modality] = {"x": x[:, rows].flatten(0, 1), "mask": mask[:, rows].flatten(0, 1)}
    labels = torch.rand(B, 2, generator=generator)
    labels[3, 0] = labels[7] = torch.nan
    return PairBatch(inputs, text_id, labels[rows])


def local_rows(rank: int, world: int) -> slice:
    return slice(rank * B // world, (rank + 1) * B // world)


def step(accelerator: Accelerator, name: str, tile: int, chunks: int) -> Result:
    """The step under test, on this process's rows of the batch."""
    rank, world = accelerator.process_index, accelerator.num_processes
    batch = make_batch(local_rows(rank, world))
    unwrapped_model = make_model(name, tile)
    model = accelerator.prepare(unwrapped_model)
    torch.manual_seed(rank)  # dropout

    def loss_fn(output: dict[str, Tensor]) -> Tensor:
        return unwrapped_model.total(unwrapped_model.losses(output, batch.text_id, batch.labels))

    if chunks:
        loss, _ = cached_backward(accelerator, model, split_into_chunks(batch, chunks), loss_fn)
    else:
        loss = loss_fn(model(batch))
        accelerator.backward(loss)
    next_random = torch.rand(())
    return Result(accelerator.reduce(loss.detach(), "mean"), *gradients(unwrapped_model), next_random)


def expected(name: str, chunks: int, world: int) -> Result:
    """The same step in one process, by autograd through all chunks at once, with the dropout of each process."""
    model = make_model(name)
    outputs, next_random, batch = [], [], make_batch()
    for rank in range(world):
        torch.manual_seed(rank)
        outputs += [model(chunk) for chunk in split_into_chunks(make_batch(local_rows(rank, world)), max(1, chunks))]
        next_random.append(torch.rand(()))
    loss = expected_loss(name, concatenate(outputs), batch)
    loss.backward()
    return Result(loss.detach(), *gradients(model), next_random[0])


def expected_loss(name: str, output: dict[str, Tensor], batch: PairBatch) -> Tensor:
    """The weighted sum of the reference losses of all pairs."""
    options: dict[str, Any] = dict(LOSSES[name])

    def term(pair: str, first: tuple[str, int], second: tuple[str, int], ids: Tensor) -> Tensor:
        x, y = (output[modality][kind] for modality, kind in (first, second))
        valid = output[f"has_{first[0]}"][first[1]] & output[f"has_{second[0]}"][second[1]]
        bias, own = output.get(f"bias_{pair}"), dict(options)
        if "soft" in own:  # by labels, of pairs with words made of labels alone
            own |= {"labels": batch.labels} if second == ("text", 1) else {"soft": 0.0}
        return WEIGHTS[pair] * reference(x, y, output[f"scale_{pair}"], ids, valid, bias=bias, **own)

    loss = torch.zeros(()).double()
    for media in ("vision", "audio"):
        for kind in range(2):
            loss = loss + term(f"{media}_text", (media, 0), ("text", kind), batch.text_id[kind]) / 2
    loss = loss + term("audio_labels", ("audio", 0), ("text", 1), batch.text_id[1])
    loss = loss + term("text_text", ("text", 0), ("text", 1), batch.text_id.T)
    return loss + term("vision_audio", ("vision", 0), ("audio", 0), batch.text_id[0])


def concatenate(outputs: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Outputs of the model for several chunks, as one; scalars are those of the first."""
    first = outputs[0]
    return {name: torch.cat([o[name] for o in outputs], 1) if first[name].ndim else first[name] for name in first}


def gradients(model: nn.Module) -> tuple[Tensor, dict[str, Tensor]]:
    """`encoder_grad` and `scalar_grads` of a Result."""
    parameters = dict(model.named_parameters())
    encoder = [p.grad.flatten() for n, p in parameters.items() if n.startswith("encoders.") and p.grad is not None]
    scalars = {n: p.grad.clone() for n, p in parameters.items() if not n.startswith("encoders.")}
    return torch.cat(encoder).clone(), scalars


def check(result: Result, wanted: Result) -> None:
    """Compare losses, the encoders' gradient in direction, length and every entry, and each scalar's gradient."""
    a, b = result.encoder_grad.double(), wanted.encoder_grad.double()
    assert abs(torch.nn.functional.cosine_similarity(a, b, dim=0).item() - 1) < 1e-6
    assert abs((a.norm() / b.norm()).item() - 1) < 1e-4
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5 * b.abs().max().item())
    assert result.scalar_grads.keys() == wanted.scalar_grads.keys()
    for name, value in wanted.scalar_grads.items():
        assert abs(value) > 1e-3, f"{name}: too small a gradient to compare"
        assert abs((result.scalar_grads[name] / value).item() - 1) < 1e-4, name
    assert abs(result.loss / wanted.loss - 1) < 1e-5
