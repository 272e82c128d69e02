"""Published systems: each forward pass against loops over clips, steps and heads that read the model's own weights."""

import math

import made_up
import pytest
import torch

from shared.errors import UserError
from stage2_fusion import model_folder
from stage2_fusion.config import LossConfig
from stage2_fusion.features import MODALITIES, collate
from stage2_fusion.losses import FusionLoss, Rows
from stage2_fusion.models.base import clipped
from stage2_fusion.models.concat_vad import pool_steps

# --- the obvious way: vectors (C,) in lists, one clip at a time ------------------------------------------------------


def steps_of(model, sample, name):
    """The clip's normalised steps, a list of (C,)."""
    mean, scale = getattr(model, f"{name}_x_mean"), getattr(model, f"{name}_x_scale")
    return [((torch.tensor(row).float() - mean) * scale).clamp(-10, 10) for row in sample[name]["sequence"]]


def mean_of(rows, width):
    return sum(rows) / len(rows) if rows else torch.zeros(width)


def linear(layer, x):
    return layer.weight @ x + layer.bias


def layer_norm(layer, x):
    centred = x - x.mean()
    return centred / (centred.square().mean() + layer.eps).sqrt() * layer.weight + layer.bias


def gelu(x):
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def last_state(last, rows, width):
    """Hochreiter's cell, one step and one layer after the other."""
    lstm = last.lstm
    for level in range(lstm.num_layers):
        w, u, bw, bu = (getattr(lstm, f"{key}_l{level}") for key in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
        h, c, states = torch.zeros(width), torch.zeros(width), []
        for x in rows:
            i, f, g, o = (w @ x + bw + u @ h + bu).chunk(4)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            states.append(h)
        rows = states
    return rows[-1] if rows else torch.zeros(width)


def attend(q, keys, values, heads):
    """One query over steps: (d,), lists of (d,) -> (d,)."""
    size, parts = len(q) // heads, []
    for h in range(heads):
        own = slice(h * size, (h + 1) * size)
        weights = torch.stack([(q[own] * k[own]).sum() / math.sqrt(size) for k in keys]).softmax(0)
        parts.append(sum(w * v[own] for w, v in zip(weights, values, strict=True)))
    return torch.cat(parts)


def tcn(layer, rows):
    for norm, conv, mix in zip(layer.norms, layer.convolutions, layer.mixes, strict=True):
        normed, out = [norm(x) for x in rows], []
        for t, x in enumerate(rows):
            y = conv.bias.clone()
            for tap in (-1, 0, 1):
                there = t + tap * conv.dilation[0]
                if 0 <= there < len(rows):
                    y += conv.weight[:, :, tap + 1] @ normed[there]
            out.append(x + linear(mix, gelu(y)))
        rows = out
    return rows


def lstm_vad(model, sample):
    rows, width = steps_of(model, sample, "audio"), made_up.WIDTHS["audio"]
    clip = torch.cat([mean_of(rows, width), last_state(model.last, rows, width)])
    return linear(model.head[3], linear(model.head[1], clip).tanh()).clamp(0, 1), None, None


def concat_lstm(model, sample):
    rows = {name: steps_of(model, sample, name) for name in MODALITIES}
    parts = [last_state(model.last[name], rows[name], made_up.WIDTHS[name]) for name in ("vision", "audio")]
    clip = torch.cat([*parts, mean_of(rows["text"], made_up.WIDTHS["text"])])
    return linear(model.head[4], linear(model.head[1], clip).tanh()).clamp(0, 1), None, None


def text_anchored(model, sample):
    words = steps_of(model, sample, "text")
    text = linear(model.text, mean_of(words, 0)) if words else model.missing[2]
    parts = [text]
    for m, name in ((0, "vision"), (1, "audio")):
        rows, over = steps_of(model, sample, name), model.over[name]
        bq, bk, bv = over.in_proj_bias.chunk(3)
        if rows:
            keys, values = [over.k_proj_weight @ x + bk for x in rows], [over.v_proj_weight @ x + bv for x in rows]
            parts.append(linear(over.out_proj, attend(over.q_proj_weight @ text + bq, keys, values, 4)))
        else:
            parts.append(model.missing[m])
    return linear(model.head[4], gelu(linear(model.head[1], torch.cat(parts)))).clamp(0, 1), None, None


def late_fusion(model, sample):
    alone = {}
    rows = [linear(model.projections["vision"], x) for x in steps_of(model, sample, "vision")]
    if rows:
        width = len(rows[0])
        periods = [0.5 * 128 ** (i / (width // 2 - 1)) for i in range(width // 2)]
        places = [[2 * math.pi * float(t) / p for p in periods] for t in sample["vision"]["times"]]
        places = [torch.tensor([math.sin(a) for a in place] + [math.cos(a) for a in place]) for place in places]
        rows = [x + place for x, place in zip(tcn(model.tcn["vision"], rows), places, strict=True)]
        for layer in model.transformer.layers:
            w, b = layer.self_attn.in_proj_weight, layer.self_attn.in_proj_bias
            q, k, v = ([wi @ x + bi for x in rows] for wi, bi in zip(w.chunk(3), b.chunk(3), strict=True))
            rows = [
                layer_norm(layer.norm1, x + linear(layer.self_attn.out_proj, attend(qi, k, v, 2)))
                for x, qi in zip(rows, q, strict=True)
            ]
            rows = [
                layer_norm(layer.norm2, x + linear(layer.linear2, linear(layer.linear1, x).clamp(min=0))) for x in rows
            ]
        weights = torch.cat([linear(model.score, x) for x in rows]).softmax(0)
        alone["vision"] = sum(w * x for w, x in zip(weights, rows, strict=True))
    rows = tcn(model.tcn["audio"], [linear(model.projections["audio"], x) for x in steps_of(model, sample, "audio")])
    if rows:
        alone["audio"] = mean_of(rows, 0)
    alone = {name: linear(model.heads[name], clip).sigmoid() for name, clip in alone.items()}
    biases = [head.bias.sigmoid() for head in model.heads.values()]
    nothing = torch.full_like(biases[0], torch.nan)
    branches = torch.stack([alone.get(name, nothing) for name in MODALITIES])
    return mean_of([*alone.values()] or biases, 0), branches, None


def concat_vad(model, sample):
    parts, branches, penalty = [], [], torch.zeros(())
    for name in MODALITIES:
        rows = steps_of(model, sample, name)
        clip = torch.zeros(model.options.width)
        if rows:
            count, steps = len(rows), model.options.steps
            windows = [rows[math.floor(s * count / steps) : math.ceil((s + 1) * count / steps)] for s in range(steps)]
            rows = [mean_of(window, 0) for window in windows]
            if name == "audio":
                prior = linear(model.prior, mean_of(rows, 0)).sigmoid()
                penalty = (prior - 0.5).square().mean()
                rows = [torch.cat([x, prior]) for x in rows]
            norm, project = model.steps[name][:2]
            clip = mean_of([gelu(linear(project, layer_norm(norm, x))) for x in rows], 0)
            clip = linear(model.clips[name][1], layer_norm(model.clips[name][0], clip))
        alone = linear(model.branches[name], clip).sigmoid()
        branches.append(alone if rows else torch.full_like(alone, torch.nan))
        parts.append(clip)
    hidden = gelu(linear(model.head[1], layer_norm(model.head[0], torch.cat(parts))))
    return linear(model.head[4], hidden).sigmoid(), torch.stack(branches), penalty


REFERENCES = {f.__name__: f for f in (concat_lstm, concat_vad, late_fusion, lstm_vad, text_anchored)}


def build(name, k=2, **options):
    """A model whose every parameter matters: none is left at zero or one, where mistakes would not show."""
    torch.manual_seed(0)
    samples = made_up.samples({"train": 12}, k, views=0, seed=4)
    model = model_folder.build(name, {**made_up.SMALL[name], **options}, made_up.info(k))
    model.fit_statistics(samples)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model, samples


@pytest.mark.parametrize("name", REFERENCES)
@torch.no_grad()
def test_forward_is_what_the_loops_say(name):
    model, samples = build(name)
    for sample, gone in zip(samples, ["vision", "audio", "text", "vision audio", "vision audio text"], strict=False):
        for modality in gone.split():
            for key in ("sequence", "quality", "times"):
                sample[modality][key] = sample[modality][key][:0]
    output = model.eval()(collate(samples))
    assert output.prediction.std(dim=0).min() > 0.01  # not all clipped
    for i, sample in enumerate(samples):
        prediction, branches, penalty = REFERENCES[name](model, sample)
        torch.testing.assert_close(output.prediction[i], prediction, atol=1e-5, rtol=0)
        for own, expected in ((output.branches, branches), (output.penalty, penalty)):
            assert (own is None) == (expected is None)
            if own is not None:
                torch.testing.assert_close(own[i], expected, atol=1e-5, rtol=0, equal_nan=True)


@torch.no_grad()
def test_steps_are_pooled_as_torch_pools_each_row_alone():
    lengths = [1, 3, 16, 37, 0]
    mask = torch.arange(40)[None] < torch.tensor(lengths)[:, None]
    x = torch.randn(5, 40, 2) * mask[..., None]
    pooled = pool_steps(x, mask, 16)
    for row, length in enumerate(lengths[:4]):
        alone = torch.nn.functional.adaptive_avg_pool1d(x[row : row + 1, :length].transpose(1, 2), 16)
        torch.testing.assert_close(pooled[row], alone[0].T)
    assert (pooled[4] == 0).all()


def test_clipped_is_in_bounds_and_still_learns_outside_them():
    x = torch.tensor([-0.5, 0.3, 1.5], requires_grad=True)
    y = clipped(x)
    torch.testing.assert_close(y, torch.tensor([0.0, 0.3, 1.0]))
    y.sum().backward()
    assert x.grad.tolist() == [1, 1, 1]


@pytest.mark.parametrize("name", ["late_fusion", "text_anchored"])
def test_heads_that_do_not_divide_the_width_are_refused(name):
    with pytest.raises(UserError, match=r"width 30 must be .*multiple of heads = 4"):
        model_folder.build(name, {"width": 30, "heads": 4}, made_up.info())


def test_a_model_that_reads_audio_alone_says_so_and_never_loses_it_to_modality_dropout():
    with pytest.raises(UserError, match="modalities holds vision, text, but this model reads audio alone"):
        model_folder.build("lstm_vad", {"modalities": ["vision", "text"]}, made_up.info())
    model, samples = build("lstm_vad", modality_dropout=1.0)
    batch = collate(samples)
    inputs = model.train().inputs(batch)
    assert torch.equal(inputs["audio"]["present"], batch["audio"]["present"])
    assert not inputs["vision"]["present"].any() and not inputs["text"]["present"].any()


@pytest.mark.parametrize("name", REFERENCES)
@pytest.mark.parametrize("k", [1, 9])
@pytest.mark.parametrize("labels", ["constant", "one row", "none"])
def test_labels_that_teach_nothing_do_no_harm(name, k, labels):
    model, samples = build(name, k)
    batch = collate(samples)
    batch["labels"][:] = {"constant": 0.5, "one row": torch.nan, "none": torch.nan}[labels]
    if labels == "one row":
        batch["labels"][3] = 0.2
    has = model(batch)
    branches = {} if has.branches is None else {"vision": 0.1, "audio": 0.1}
    config = LossConfig(pcc=0.5, ccc=0.5, ramp_epochs=0, branches=branches, penalty=0.1 * (has.penalty is not None))
    criterion, optimizer = FusionLoss(config, k), torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(3):
        if step == 1:  # a model that has died: its predictions are constant
            for parameter in model.parameters():
                parameter.data.zero_()
        output = model.train()(batch)
        rows = (output.prediction, batch["labels"], output.clip_weights(), batch["damaged"])
        loss = criterion(Rows(*rows, output.branches, output.penalty), paired=False, epoch=step)["loss"]
        optimizer.zero_grad()
        loss.backward()
        assert torch.isfinite(loss) and all(torch.isfinite(p.grad).all() for p in model.parameters())
        optimizer.step()
    assert torch.isfinite(model.eval()(batch).prediction).all()
