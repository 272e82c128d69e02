"""Is the gradient of two processes that of one holding the whole batch? Ours and the installed peers, in one table.

    python tests/benchmarks/peer_gradients.py

Two gloo processes under DistributedDataParallel train a pair of small encoders and a temperature; the reference is
autograd through the same objective over the whole batch in one process. 1 is exact, in every column:

cosine        between the gradients of the encoders: less than 1 is another objective
encoders      ratio of their norms: 1 / processes is invisible to AdamW, not to clipping, nor to the balance with
temperature   ratio of the gradient of the temperature
logged loss   the processes' mean of it, over the loss of the global batch
"""

import os
import sys
import tempfile
import warnings
from dataclasses import dataclass

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, normalize
from torch.nn.parallel import DistributedDataParallel

from shared import config as configuration
from stage1_align.data.pairs import PairBatch

WORLD = 2
D = 16


@dataclass
class PeerConfig:
    """Compare gradients of contrastive losses over processes."""

    batch: int = 24
    """Clips of the global batch; a multiple of 4, for two processes of two chunks."""
    seed: int = 0
    """Of the weights and the batch."""


class Pair(nn.Module):
    def __init__(self, seed: int):
        super().__init__()
        torch.manual_seed(seed)
        self.a, self.b = (nn.Sequential(nn.Linear(12, 32), nn.Tanh(), nn.Linear(32, D)) for _ in range(2))
        self.log_scale = nn.Parameter(torch.tensor(2.659))
        self.bias = nn.Parameter(torch.tensor(-3.0))

    def forward(self, batch: PairBatch) -> dict:
        items = batch.inputs["pair"]
        x, y = normalize(self.a(items["x"]), dim=1), normalize(self.b(items["y"]), dim=1)  # (b, D)
        return {"x": x[None], "y": y[None], "scale": self.log_scale.exp(), "bias": self.bias.clone()}


def make_batch(config: PeerConfig, rows: slice = slice(None)) -> PairBatch:
    generator = torch.Generator().manual_seed(config.seed + 1)
    x, y = (torch.randn(config.batch, 12, generator=generator)[rows] for _ in range(2))
    return PairBatch({"pair": {"x": x, "y": y}}, torch.arange(config.batch)[None, rows])


# --- references: one process, the whole batch ---


def whole_softmax(out: dict) -> torch.Tensor:
    logits, own = out["scale"] * out["x"][0] @ out["y"][0].T, torch.arange(out["x"].shape[1])
    return (cross_entropy(logits, own) + cross_entropy(logits.T, own)) / 2


def whole_sigmoid(out: dict) -> torch.Tensor:
    logits = out["scale"] * out["x"][0] @ out["y"][0].T + out["bias"]
    return binary_cross_entropy_with_logits(logits, torch.eye(len(logits)), reduction="sum") / len(logits)


# --- steps: a prepared model and this process's share to the loss it logs, gradients left in the model ---


def by(loss_of):
    """A step that is loss_of(outputs, this process's ids).backward()."""

    def step(accelerator, model, batch):
        loss = loss_of(model(batch), batch.text_id[0])
        loss.backward()
        return loss.detach()

    return step


def open_clip_softmax(local_loss: bool, gather_with_grad: bool):
    def loss_of(out, ids):
        from open_clip.loss import ClipLoss

        loss = ClipLoss(local_loss, gather_with_grad, rank=dist.get_rank(), world_size=WORLD)
        return loss(out["x"][0], out["y"][0], out["scale"])

    return by(loss_of)


def open_clip_sigmoid(implementation: str):
    def loss_of(out, ids):
        from open_clip.loss import SigLipLoss

        loss = SigLipLoss(rank=dist.get_rank(), world_size=WORLD, dist_impl=implementation)
        return loss(out["x"][0], out["y"][0], out["scale"], out["bias"])

    return by(loss_of)


def open_clip_accumulation(accelerator, model, batch):
    """accum_freq = 2 with the exact flags, in the order of open_clip_train: features first, then each chunk again
    among the kept features of the other, the loss of the whole through every chunk."""
    from open_clip.loss import ClipLoss

    from stage1_align.gradient_cache import split_into_chunks

    loss_of = ClipLoss(local_loss=True, gather_with_grad=True, rank=dist.get_rank(), world_size=WORLD)
    chunks = split_into_chunks(batch, 2)
    with torch.no_grad():
        kept = [model(chunk) for chunk in chunks]
    for index, chunk in enumerate(chunks):
        out = model(chunk)
        x, y = ([*(k[side][0] for k in kept)] for side in "xy")
        x[index], y[index] = out["x"][0], out["y"][0]
        loss = loss_of(torch.cat(x), torch.cat(y), out["scale"])
        loss.backward()
    return loss.detach()


def laion_clap(local_loss: bool, gather_with_grad: bool):
    def loss_of(out, ids):
        loss = laion_clap_loss()(local_loss, gather_with_grad, rank=dist.get_rank(), world_size=WORLD)
        return loss(out["x"][0], out["y"][0], out["scale"], out["scale"])

    return by(loss_of)


def laion_clap_loss():
    """laion_clap's ClipLoss from its file: the package's own import reaches for a hub."""
    import importlib.util
    from pathlib import Path

    package = importlib.util.find_spec("laion_clap").submodule_search_locations[0]
    spec = importlib.util.spec_from_file_location("laion_loss", Path(package) / "clap_module" / "loss.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.ClipLoss


def transformers_clap(out, ids):
    """As ClapModel.forward(return_loss=True) writes it, of the process's own pairs. logits_per_audio is turned into
    text by audio before its cross-entropy, so that both halves have texts for queries."""
    from transformers.models.clap.modeling_clap import contrastive_loss

    logits_per_text = out["scale"] * out["y"][0] @ out["x"][0].T
    logits_per_audio = out["scale"] * out["x"][0] @ out["y"][0].T
    return (contrastive_loss(logits_per_text) + contrastive_loss(logits_per_audio.t())) / 2


def transformers_clap_alone(accelerator, model, batch):
    """Every process holds the whole batch: what is left is the missing direction."""
    whole = {name: accelerator.gather(value) for name, value in batch.inputs["pair"].items()}
    return by(transformers_clap)(accelerator, model, PairBatch({"pair": whole}, batch.text_id))


def per_process(out, ids):
    return whole_softmax(out)


def gather_then_own_rows(accelerator, model, batch):
    """accelerator.gather, which has no gradient, and the process's own rows of both matrices."""
    out = model(batch)
    x, y, ids = out["x"][0], out["y"][0], batch.text_id[0]
    one = cross_entropy(out["scale"] * x @ accelerator.gather(y).T, ids)
    other = cross_entropy(out["scale"] * y @ accelerator.gather(x).T, ids)
    loss = (one + other) / 2
    loss.backward()
    return loss.detach()


def ours(kind: str, chunks: int):
    from stage1_align.gradient_cache import cached_backward, split_into_chunks
    from stage1_align.loss import contrastive

    def step(accelerator, model, batch):
        def loss_of(out):
            ids, valid = batch.text_id[0], torch.ones(batch.text_id.shape[1]).bool()
            return contrastive(out["x"][0], out["y"][0], out["scale"], ids, valid, kind=kind, bias=out["bias"], tile=5)

        if chunks:
            return cached_backward(accelerator, model, split_into_chunks(batch, chunks), loss_of)[0]
        loss = loss_of(model(batch))
        accelerator.backward(loss)
        return loss.detach()

    return step


ROWS = {
    "ours, InfoNCE": (whole_softmax, ours("info_nce", 0)),
    "ours, InfoNCE, 3 chunks": (whole_softmax, ours("info_nce", 3)),
    "ours, sigmoid": (whole_sigmoid, ours("sigmoid", 0)),
    "ours, sigmoid, 3 chunks": (whole_sigmoid, ours("sigmoid", 3)),
    "open_clip ClipLoss (default)": (whole_softmax, open_clip_softmax(False, False)),
    "open_clip ClipLoss gather_with_grad": (whole_softmax, open_clip_softmax(False, True)),
    "open_clip ClipLoss local_loss": (whole_softmax, open_clip_softmax(True, False)),
    "open_clip ClipLoss local_loss gather_with_grad": (whole_softmax, open_clip_softmax(True, True)),
    "the same, as open_clip_train does with accum_freq 2": (whole_softmax, open_clip_accumulation),
    "open_clip SigLipLoss bidir (default)": (whole_sigmoid, open_clip_sigmoid("bidir")),
    "open_clip SigLipLoss shift": (whole_sigmoid, open_clip_sigmoid("shift")),
    "open_clip SigLipLoss reduce": (whole_sigmoid, open_clip_sigmoid("reduce")),
    "open_clip SigLipLoss gather": (whole_sigmoid, open_clip_sigmoid("gather")),
    "laion_clap ClipLoss (default)": (whole_softmax, laion_clap(False, False)),
    "laion_clap ClipLoss local_loss gather_with_grad": (whole_softmax, laion_clap(True, True)),
    "transformers ClapModel's loss": (whole_softmax, by(transformers_clap)),
    "the same, in one process with the whole batch": (whole_softmax, transformers_clap_alone),
    "loss of each process's own rows": (whole_softmax, by(per_process)),
    "accelerator.gather, own rows": (whole_softmax, gather_then_own_rows),
}
"""Name: the objective over the whole batch, and the step that should have its gradient."""


def gradients(model: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    encoders = torch.cat([p.grad.flatten() for n, p in model.named_parameters() if n[0] in "ab" and p.ndim])
    return encoders.double(), model.log_scale.grad.double()


def work(rank: int, folder: str, config: PeerConfig) -> None:
    ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": WORLD, "LOCAL_WORLD_SIZE": WORLD}
    os.environ |= {name: str(value) for name, value in ranks.items()}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}  # Accelerate asks for them; the store is a file
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=WORLD)
    warnings.simplefilter("ignore", FutureWarning)  # peers call deprecated collectives
    from accelerate import Accelerator

    accelerator, results = Accelerator(cpu=True), {}
    rows = slice(rank * config.batch // WORLD, (rank + 1) * config.batch // WORLD)
    for name, (_, step) in ROWS.items():
        bare = Pair(config.seed)
        model = DistributedDataParallel(bare, find_unused_parameters=True)  # the bias, where a loss has none
        loss = step(accelerator, model, make_batch(config, rows))
        results[name] = (*gradients(bare), loss)
    torch.save(results, f"{folder}/{rank}.pt")
    dist.barrier()
    os._exit(0)  # gloo's threads outlive their group, and the interpreter's clean-up now and then aborts on them


def main(argv: list[str] | None = None) -> int:
    example = "python tests/benchmarks/peer_gradients.py"
    config = configuration.parse(PeerConfig, argv, prog="peer_gradients.py", example=example)
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(work, (folder, config), nprocs=WORLD)
        results = [torch.load(f"{folder}/{rank}.pt") for rank in range(WORLD)]
    print("| loss, 2 processes | cosine | encoders | temperature | logged loss |\n|---|---|---|---|---|")
    for name, (objective, _) in ROWS.items():
        model = Pair(config.seed)
        loss = objective(model(make_batch(config)))
        loss.backward()
        wanted, scale = gradients(model)
        got, got_scale, _ = results[0][name]
        assert torch.equal(got, results[1][name][0]), f"{name}: the processes differ"
        logged = torch.stack([result[name][2] for result in results]).mean() / loss.detach()
        cosine = torch.nn.functional.cosine_similarity(got, wanted, dim=0)
        cells = (cosine, got.norm() / wanted.norm(), got_scale / scale, logged)
        print(f"| {name} | {cells[0]:.6f} | " + " | ".join(f"{cell:.4f}" for cell in cells[1:]) + " |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
