"""A whole contrastive step with dropout, small enough to check: every loss, tile and chunk, at any number of processes,
against autograd through the obvious losses in one process."""

import itertools

import torch
from helpers.contrastive_reference import LOSSES, reference
from torch import nn

from stage1_align.config import LossConfig
from stage1_align.data.pairs import PairBatch
from stage1_align.encoders import AlignedEncoders
from stage1_align.gradient_cache import cached_backward, split_into_chunks
from stage1_align.model import ContrastiveModel
from stage1_align.towers.base import Encoded

B, D = 12, 6
WEIGHTS = {"vision_text": 1.0, "audio_text": 0.5, "text_text": 0.7, "vision_audio": 0.4, "audio_labels": 0.3}
TILES = (1, 4, 64)
CHUNKS = (0, 1, 3)  # 0: the step without a cache
CASES = list(itertools.product(LOSSES, TILES, CHUNKS))


class Tower(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(width, 16), nn.GELU(), nn.Dropout(0.3), nn.Linear(16, D))

    def blocks(self):
        return []

    def forward(self, x, mask):
        pooled = nn.functional.normalize(self.net(x).float(), dim=-1) * mask.any(1, keepdim=True)  # (B, D)
        return Encoded(pooled, x[:, None], mask, None)


def make_model(name: str, tile: int = 1024) -> ContrastiveModel:
    torch.manual_seed(0)
    encoders = AlignedEncoders(Tower(5), Tower(7), Tower(9), embed_dim=D)
    options = {**LOSSES[name], "pairs": WEIGHTS, "initial_scale": 9.0, "initial_bias": -2.0, "tile": tile}
    return ContrastiveModel(encoders, LossConfig(**options), ["transcript", "labels"])


def make_batch(rows: slice = slice(None)) -> PairBatch:
    """Two texts a clip; some clips lack an item, some texts are equal, some labels unknown."""
    generator = torch.Generator().manual_seed(1)
    text_id, inputs = torch.randint(0, 9, (2, B), generator=generator)[:, rows], {}
    for modality, width, kinds in (("vision", 5, 1), ("audio", 7, 1), ("text", 9, 2)):
        x = torch.randn(kinds, B, width, generator=generator)
        mask = (torch.rand(kinds, B, generator=generator) > 0.15)[..., None].expand(-1, -1, 3)
        inputs[modality] = {"x": x[:, rows].flatten(0, 1), "mask": mask[:, rows].flatten(0, 1)}
    labels = torch.rand(B, 2, generator=generator)
    labels[3, 0] = labels[7] = torch.nan
    return PairBatch(inputs, text_id, labels[rows])


def soft_of(name: str, batch: PairBatch) -> dict:
    options = {key: value for key, value in LOSSES[name].items() if key != "kind"}
    return {**options, "labels": batch.labels} if options else {}


def step(accelerator, name: str, tile: int, chunks: int) -> dict:
    """The loss, and the gradients left in the model, of this process's share of the batch."""
    rank, world = accelerator.process_index, accelerator.num_processes
    batch = make_batch(slice(rank * B // world, (rank + 1) * B // world))
    bare = make_model(name, tile)
    model = accelerator.prepare(bare)
    torch.manual_seed(rank)  # dropout

    def loss_fn(out):
        return bare.total(bare.losses(out, batch.text_id, batch.labels))

    if chunks:
        loss, _ = cached_backward(accelerator, model, split_into_chunks(batch, chunks), loss_fn)
    else:
        loss = loss_fn(model(batch))
        accelerator.backward(loss)
    after = torch.rand(())  # where the random state stands after the step
    return {"loss": accelerator.reduce(loss.detach(), "mean"), **gradients(bare), "after": after}


def expected(name: str, chunks: int, world: int) -> dict:
    """The same by autograd through every piece at once, with the dropout each process's pieces have."""
    model = make_model(name)
    outs, after, whole = [], [], make_batch()
    for rank in range(world):
        torch.manual_seed(rank)
        share = make_batch(slice(rank * B // world, (rank + 1) * B // world))
        outs += [model(piece) for piece in split_into_chunks(share, max(1, chunks))]
        after.append(torch.rand(()))
    out = {key: torch.cat([o[key] for o in outs], 1) if outs[0][key].ndim else outs[0][key] for key in outs[0]}
    options = {"kind": LOSSES[name]["kind"], **soft_of(name, whole)}

    def term(x, y, valid, ids, pair):
        bias = out.get(f"bias_{pair}")
        return reference(x, y, out[f"scale_{pair}"], ids, valid, bias=bias, **options)

    loss, has = 0, {m: out[f"has_{m}"] for m in ("vision", "audio", "text")}
    for pair in ("vision_text", "audio_text"):
        m = pair.removesuffix("_text")
        for n in range(2):
            value = term(out[m][0], out["text"][n], has[m][0] & has["text"][n], whole.text_id[n], pair)
            loss = loss + WEIGHTS[pair] * value / 2
    valid = has["audio"][0] & has["text"][1]
    value = term(out["audio"][0], out["text"][1], valid, whole.text_id[1], "audio_labels")
    loss = loss + WEIGHTS["audio_labels"] * value
    valid = has["text"][0] & has["text"][1]
    loss = loss + WEIGHTS["text_text"] * term(out["text"][0], out["text"][1], valid, whole.text_id[1], "text_text")
    valid = has["vision"][0] & has["audio"][0]
    value = term(out["vision"][0], out["audio"][0], valid, whole.text_id[0], "vision_audio")
    loss = loss + WEIGHTS["vision_audio"] * value
    loss.backward()
    return {"loss": loss.detach(), **gradients(model), "after": after[0]}


def gradients(model: nn.Module) -> dict:
    encoder = torch.cat(
        [p.grad.flatten() for n, p in model.named_parameters() if n.startswith("encoders.") and p.grad is not None]
    )
    scalars = {n: p.grad.clone() for n, p in model.named_parameters() if not n.startswith("encoders.")}
    return {"encoder": encoder.clone(), "temperature": scalars}


def check(got: dict, wanted: dict) -> None:
    """Cosine and ratio of the encoders' gradient, ratio of every temperature's and bias's."""
    a, b = got["encoder"].double(), wanted["encoder"].double()
    assert abs(torch.nn.functional.cosine_similarity(a, b, dim=0).item() - 1) < 1e-6
    assert abs((a.norm() / b.norm()).item() - 1) < 1e-4
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5 * b.abs().max().item())
    assert got["temperature"].keys() == wanted["temperature"].keys()
    for name, value in wanted["temperature"].items():
        assert abs(value) > 1e-3, f"{name}: too small a gradient to compare"
        assert abs((got["temperature"][name] / value).item() - 1) < 1e-4, name
    assert abs(got["loss"] / wanted["loss"] - 1) < 1e-5
