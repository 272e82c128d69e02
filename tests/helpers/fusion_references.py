"""The forward pass of every fusion model as loops over steps and heads: one clip at a time, vectors (C,) in lists."""

import math

import torch
from helpers import synthetic_features

from shared.dataset.clip import MODALITIES
from stage2_fusion.models.base import Output


def normalized(model, name, key, row):
    mean, scale = getattr(model, f"{name}_{key}_mean"), getattr(model, f"{name}_{key}_scale")
    return ((torch.tensor(row).float() - mean) * scale).clamp(-10, 10)


def steps_of(model, sample, name):
    """The normalized steps of the clip, a list of (C,)."""
    return [normalized(model, name, "x", row) for row in sample.modality(name).sequence]


def mean_of(rows, width):
    return sum(rows) / len(rows) if rows else torch.zeros(width)


def linear(layer, x):
    return layer.weight @ x + layer.bias


def layer_norm(layer, x):
    centered = x - x.mean()
    return centered / (centered.square().mean() + layer.eps).sqrt() * layer.weight + layer.bias


def gelu(x):
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def lstm_states(lstm, rows, level):
    """Hidden states of one LSTM layer, step by step; level "0", or "0_reverse" for rows in reverse."""
    w, u, bw, bu = (getattr(lstm, f"{key}_l{level}") for key in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    h, c, states = torch.zeros(lstm.hidden_size), torch.zeros(lstm.hidden_size), []
    for x in rows:
        i, f, g, o = (w @ x + bw + u @ h + bu).chunk(4)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        states.append(h)
    return states


def last_state(last, rows, width):
    for level in range(last.lstm.num_layers):
        rows = lstm_states(last.lstm, rows, f"{level}")
    return rows[-1] if rows else torch.zeros(width)


def attend(q, keys, values, heads):
    """One query over steps: (d,), lists of S (d,) -> (d,), weights (S,) averaged over heads."""
    size, parts, weights = len(q) // heads, [], []
    for h in range(heads):
        own = slice(h * size, (h + 1) * size)
        weights.append(torch.stack([(q[own] * k[own]).sum() / math.sqrt(size) for k in keys]).softmax(0))
        parts.append(sum(w * v[own] for w, v in zip(weights[-1], values, strict=True)))
    return torch.cat(parts), mean_of(weights, 0)


def attention_over(layer, queries, rows):
    """Output and weights of an nn.MultiheadAttention for each query over the rows: lists of (d,), (S,)."""
    wq, wk, wv = layer.in_proj_weight.chunk(3)
    bq, bk, bv = layer.in_proj_bias.chunk(3)
    keys, values = [wk @ x + bk for x in rows], [wv @ x + bv for x in rows]
    answers = [attend(wq @ q + bq, keys, values, layer.num_heads) for q in queries]
    return [linear(layer.out_proj, answer) for answer, _ in answers], [weights for _, weights in answers]


def position(seconds, width):
    periods = [0.5 * 128 ** (i / (width // 2 - 1)) for i in range(width // 2)]
    angles = [2 * math.pi * seconds / period for period in periods]
    return torch.tensor([math.sin(a) for a in angles] + [math.cos(a) for a in angles])


def tcn(layer, rows):
    for norm, conv, mix in zip(layer.norms, layer.convs, layer.pointwise, strict=True):
        normed, out = [norm(x) for x in rows], []
        for t, x in enumerate(rows):
            y = conv.bias.clone()
            for tap in (-1, 0, 1):
                other = t + tap * conv.dilation[0]
                if 0 <= other < len(rows):
                    y += conv.weight[:, :, tap + 1] @ normed[other]
            out.append(x + linear(mix, gelu(y)))
        rows = out
    return rows


def gated_bilstm(layer, rows):
    if layer is None or not rows:
        return rows
    states = [layer_norm(layer.norm, x) for x in rows]
    for level in range(layer.lstm.num_layers):
        ahead = lstm_states(layer.lstm, states, f"{level}")
        back = lstm_states(layer.lstm, states[::-1], f"{level}_reverse")[::-1]
        states = [torch.cat(pair) for pair in zip(ahead, back, strict=True)]
    gates = [linear(layer.gate, torch.cat([x, y])).sigmoid() for x, y in zip(rows, states, strict=True)]
    return [g * y + (1 - g) * x for g, x, y in zip(gates, rows, states, strict=True)]


def uniform(sample, reads=MODALITIES):
    """Weights (1, 3) and step mask (1,) of a model that does not weight modalities."""
    present = torch.tensor([float(name in reads and sample.modality(name).steps > 0) for name in MODALITIES])
    return present[None] / max(1, present.sum()), present.sum()[None] > 0


def lstm_vad(model, sample):
    rows, width = steps_of(model, sample, "audio"), synthetic_features.WIDTHS["audio"]
    clip = torch.cat([mean_of(rows, width), last_state(model.last_state, rows, width)])
    return Output(linear(model.head[3], linear(model.head[1], clip).tanh()).clamp(0, 1), *uniform(sample, ["audio"]))


def concat_lstm(model, sample):
    rows = {name: steps_of(model, sample, name) for name in MODALITIES}
    parts = [
        last_state(model.last_states[name], rows[name], synthetic_features.WIDTHS[name]) for name in ("vision", "audio")
    ]
    clip = torch.cat([*parts, mean_of(rows["text"], synthetic_features.WIDTHS["text"])])
    return Output(linear(model.head[4], linear(model.head[1], clip).tanh()).clamp(0, 1), *uniform(sample))


def text_anchored(model, sample):
    words = steps_of(model, sample, "text")
    text = mean_of(words, 0) if words else model.missing["text"]
    parts = [text]
    for name in ("vision", "audio"):
        rows, over = steps_of(model, sample, name) or [model.missing[name]], model.cross_attn[name]
        query, *keys = (
            layer_norm(part[1], linear(part[0], x)) for part, x in [(over.query, text), *((over.key, x) for x in rows)]
        )
        parts.append(linear(over.out_proj, attend(query, keys, [linear(over.value, x) for x in rows], 4)[0]))
    hidden = gelu(linear(model.head[0], torch.cat(parts)))
    return Output(linear(model.head[3], hidden).clamp(0, 1), *uniform(sample))


def late_fusion(model, sample):
    alone = {}
    rows = [linear(model.projections["vision"], x) for x in steps_of(model, sample, "vision")]
    if rows:
        places = [position(float(t), len(rows[0])) for t in sample.vision.times]
        rows = [x + place for x, place in zip(tcn(model.tcn["vision"], rows), places, strict=True)]
        for layer in model.transformer.layers:
            normed = [layer_norm(layer.norm1, x) for x in rows]
            attended, _ = attention_over(layer.self_attn, normed, normed)
            rows = [x + y for x, y in zip(rows, attended, strict=True)]
            hidden = [linear(layer.linear1, layer_norm(layer.norm2, x)).clamp(min=0) for x in rows]
            rows = [x + linear(layer.linear2, y) for x, y in zip(rows, hidden, strict=True)]
        rows = [layer_norm(model.transformer.norm, x) for x in rows]
        weights = torch.cat([linear(model.score, x) for x in rows]).softmax(0)
        alone["vision"] = sum(w * x for w, x in zip(weights, rows, strict=True))
    rows = tcn(model.tcn["audio"], [linear(model.projections["audio"], x) for x in steps_of(model, sample, "audio")])
    if rows:
        alone["audio"] = linear(model.hidden[0], mean_of(rows, 0)).clamp(min=0)
    alone = {name: linear(model.heads[name], clip).sigmoid() for name, clip in alone.items()}
    biases = [head.bias.sigmoid() for head in model.heads.values()]
    nothing = torch.full_like(biases[0], torch.nan)
    branches = torch.stack([alone.get(name, nothing) for name in MODALITIES])
    weights = uniform(sample, ["vision", "audio"])
    return Output(mean_of([*alone.values()] or biases, 0), *weights, branches=branches)


def concat_vad(model, sample):
    parts, branches, penalty = [], [], torch.zeros(())
    for name in MODALITIES:
        rows = steps_of(model, sample, name)
        clip = torch.zeros(model.options.width)
        if rows:
            count, steps = len(rows), model.options.steps
            windows = [rows[math.floor(s * count / steps) : math.ceil((s + 1) * count / steps)] for s in range(steps)]
            rows = [mean_of(window, 0) for window in windows]
            rows = [hidden_layer(model.step_mlps[name], x) for x in rows]
            if name == "audio":
                prior = linear(model.prior[4], hidden_layer(model.prior, mean_of(rows, 0))).sigmoid()
                penalty = (prior - 0.5).square().mean()
                rows = [hidden_layer(model.prior_mlp, torch.cat([x, prior])) for x in rows]
            clip = linear(model.clip_mlps[name][1], layer_norm(model.clip_mlps[name][0], mean_of(rows, 0)))
        alone = linear(model.branch_heads[name][4], hidden_layer(model.branch_heads[name], clip)).sigmoid()
        branches.append(alone if rows else torch.full_like(alone, torch.nan))
        parts.append(clip)
    prediction = linear(model.head[4], hidden_layer(model.head, torch.cat(parts))).sigmoid()
    return Output(prediction, *uniform(sample), branches=torch.stack(branches), penalty=penalty)


def hidden_layer(layers, x):
    return gelu(linear(layers[1], layer_norm(layers[0], x)))


def concat(model, sample):
    parts = []
    for name in MODALITIES:
        rows, pooled = steps_of(model, sample, name), normalized(model, name, "pooled", sample.modality(name).pooled)
        parts += [mean_of(rows, synthetic_features.WIDTHS[name]), pooled if rows else 0 * pooled]
    hidden = gelu(layer_norm(model.mlp[2], linear(model.mlp[1], torch.cat(parts))))
    return Output(linear(model.mlp[5], hidden).sigmoid(), *uniform(sample))


def statistics_mlp(model, sample):
    alone = {}
    for name, mlp in model.mlps.items():
        clip = statistics_of(steps_of(model, sample, name), synthetic_features.WIDTHS[name])
        alone[name] = linear(mlp[4], linear(mlp[1], clip).clamp(min=0)).sigmoid()
    scores = model.scores if len(alone) > 1 else [torch.zeros(model.dimensions)]
    return blend(sample, alone, dict(zip(alone, scores, strict=True)))


def statistics_of(rows, width):
    """Mean, standard deviation, minimum and maximum of each channel, one after the other."""
    mean, count = mean_of(rows, width), max(1, len(rows))
    deviation = [math.sqrt(sum((row[c] - mean[c]) ** 2 for row in rows) / count) for c in range(width)]
    lowest, highest = ([pick(row[c] for row in rows) if rows else 0.0 for c in range(width)] for pick in (min, max))
    return torch.cat([mean, torch.tensor(deviation), torch.tensor(lowest), torch.tensor(highest)])


def staged_concat(model, sample):
    parts = []
    for name, encoder in model.encoders.items():
        rows = steps_of(model, sample, name)
        clip = torch.zeros(model.options.width)
        if rows:
            even = torch.ones(len(rows)) / len(rows)
            weights = even if name == "text" else torch.cat([linear(encoder.attention, x) for x in rows]).softmax(0)
            clip = layer_norm(encoder.layers[4], hidden_layer(encoder.layers, weighted(weights, rows)))
        parts.append(clip)
    clip = torch.cat(parts)
    if len(parts) == 1:
        return Output(linear(model.head[1], clip).clamp(0, 1), *uniform(sample, model.encoders))
    hidden = gelu(linear(model.head[2], layer_norm(model.head[0], clip)))
    return Output(linear(model.head[5], hidden).clamp(0, 1), *uniform(sample))


def quality_gated(model, sample):
    alone, scores = {}, {}
    for m, (name, predictor) in enumerate(model.predictors.items()):
        rows = steps_of(model, sample, name)
        signals = [normalized(model, name, "quality", row) for row in sample.modality(name).quality]
        if name == "text":
            clip = mean_of(rows, synthetic_features.WIDTHS["text"])
            alone[name] = linear(predictor.head[4], gelu(linear(predictor.head[1], clip)))
        elif name == "vision" and model.options.faces == "statistics":
            alone[name] = linear(predictor.head[0], statistics_of(rows, synthetic_features.WIDTHS[name])).sigmoid()
        else:
            clip = torch.zeros(2 * model.options.width)
            if rows:
                rows = tcn(
                    predictor.tcn, [layer_norm(predictor.project[1], linear(predictor.project[0], x)) for x in rows]
                )
                first, _, _, second = predictor.pool.attention
                logits = torch.cat([linear(second, linear(first, x).tanh()) for x in rows]) / 1.5
                if name == "vision":
                    logits = logits + torch.cat([predictor.quality.weight @ row for row in signals])
                mean = weighted(logits.softmax(0), rows)
                variance = weighted(logits.softmax(0), [(x - mean) ** 2 for x in rows])
                clip = torch.cat([mean, variance.sqrt()])
            alone[name] = linear(predictor.head[3], gelu(linear(predictor.head[0], clip)))
        if len(model.predictors) > 1:
            scorer = model.gate.scorers[m]
            seen = torch.cat([alone[name], mean_of(signals, len(synthetic_features.QUALITY[name]))])
            scores[name] = linear(scorer[2], gelu(linear(scorer[0], seen)))
    output = blend(sample, alone, scores or dict.fromkeys(alone, torch.zeros(model.dimensions)))
    bias = model.gate.bias if scores else 0.0
    return output._replace(prediction=(output.prediction + bias).clamp(0, 1))


def blend(sample, alone, scores):
    """The sum of what each modality predicts, weighted by the softmax of their scores of each dimension."""
    there = [name for name in alone if sample.modality(name).steps]
    dimensions = range(len(next(iter(alone.values()))))
    prediction, weights = [], {name: [] for name in MODALITIES}
    for k in dimensions:
        counted = there or list(alone)
        total = sum(math.exp(scores[name][k]) for name in counted)
        shares = {name: math.exp(scores[name][k]) / total for name in counted}
        prediction.append(sum(shares[name] * alone[name][k] for name in counted))
        for name in MODALITIES:
            weights[name].append(shares[name] if name in there else 0.0)
    means = torch.tensor([[sum(weights[name]) / len(dimensions) for name in MODALITIES]])
    nothing = torch.full_like(next(iter(alone.values())), torch.nan)
    branches = torch.stack([alone[name] if name in there else nothing for name in MODALITIES])
    return Output(torch.stack(prediction), means, torch.tensor([bool(there)]), branches=branches)


def dual_stage(model, sample):
    options, missing = model.options, model.missing
    centers = [(s + 0.5) / options.steps * sample.duration for s in range(options.steps)]
    features, quality = [], []  # per modality: one (d,), one (Q,) at each step of the grid, None where it is absent
    for name in MODALITIES:
        rows = [linear(model.projections[name], x) for x in steps_of(model, sample, name)]
        signals = [normalized(model, name, "quality", row) for row in sample.modality(name).quality]
        if name == "text":
            step_weights = [torch.full((len(rows),), 1 / len(rows)) if rows else None] * options.steps
        else:
            rows = tcn(model.tcn, rows) if name == "vision" else gated_bilstm(model.bilstm, rows)
            step_weights = [
                time_weights(sample.modality(name).times, center, sample.duration, options) for center in centers
            ]
        at_steps = [None if weight is None else weighted(weight, rows) for weight in step_weights]
        quality.append([None if weight is None else weighted(weight, signals) for weight in step_weights])
        if options.pooled:
            added = linear(
                model.pooled_projections[name], normalized(model, name, "pooled", sample.modality(name).pooled)
            )
            at_steps = [None if x is None else x + added for x in at_steps]
        features.append(at_steps)
    present = [[x[s] is not None for x in features] for s in range(options.steps)]
    weights = weigh(model.quality_weights, features, quality, present)
    slots = [
        [features[m][s] * weights[s][m] if present[s][m] else missing[m] for m in range(3)]
        for s in range(options.steps)
    ]
    joined = [torch.cat(slot) for slot in slots]
    memory = [linear(model.fuse[2], gelu(linear(model.fuse[0], x))) for x in joined]
    memory = [x + position(center, options.width) for x, center in zip(memory, centers, strict=True)]
    real = [s for s in range(options.steps) if any(present[s])]
    logits, attention = decode(model.decoder, options, memory, real, mean_of([slot[2] for slot in slots], 0))
    if options.shortcut:
        steps = [joined[s] for s in real] or [torch.zeros(3 * options.width)]
        logits = logits + linear(model.shortcut, torch.cat([mean_of(steps, 0), torch.stack(steps).amax(0)]))
    step_mask = torch.tensor([any(row) for row in present])
    return Output(logits.sigmoid(), torch.tensor(weights), step_mask, attention, times=torch.tensor(centers))


def weighted(weights, rows):
    """(T,), T of (C,) -> (C,)."""
    return sum(weight * row for weight, row in zip(weights, rows, strict=True))


def time_weights(times, center, duration, options):
    """Weights (T,) of the times around the center, or None where all are further than the largest gap."""
    sigma, distances = duration / options.steps / 2, [abs(float(t) - center) for t in times]
    if not distances or min(distances) > options.max_gap_seconds + sigma:
        return None
    return torch.tensor([-0.5 * (d / sigma) ** 2 for d in distances]).softmax(0)


def weigh(layer, features, quality, present):
    """Each modality's weight at each step, 0.0 where it is absent: S lists of 3."""

    def score(m, s):
        if layer.weighting == "uniform":
            return 0.0
        first, _, second = layer.scorers[m]
        return linear(second, gelu(linear(first, torch.cat([features[m][s], quality[m][s]])))).item()

    scores = [[score(m, s) if present[s][m] else None for m in range(3)] for s in range(len(present))]
    if layer.per == "clip":
        for m in range(3):
            own = [row[m] for row in scores if row[m] is not None]
            for row in scores:
                row[m] = None if row[m] is None else sum(own) / len(own)
    if layer.normalizer == "sigmoid":
        return [[0.0 if x is None else 1 / (1 + math.exp(-x)) for x in row] for row in scores]
    exponentials = [[0.0 if x is None else math.exp(x) for x in row] for row in scores]
    return [[x / (sum(row) or 1.0) for x in row] for row in exponentials]


def decode(decoder, options, memory, real, text):
    """Logits (K,), attention (K, S) or None."""
    rows = [layer_norm(decoder.memory_norm, memory[s]) for s in real or range(len(memory))]
    summary = {"learned": None, "fused": mean_of(rows, 0), "text": text}[options.queries]
    queries = [q if summary is None else q + linear(decoder.summary, summary) for q in decoder.queries]
    attention = None
    for layer in decoder.layers:
        normed = [layer_norm(layer.norms[0], q) for q in queries]
        queries = [q + y for q, y in zip(queries, attention_over(layer.self_attn, normed, normed)[0], strict=True)]
        attended, weights = attention_over(layer.cross_attn, [layer_norm(layer.norms[1], q) for q in queries], rows)
        queries = [q + y for q, y in zip(queries, attended, strict=True)]
        queries = [q + linear(layer.mlp[3], gelu(linear(layer.mlp[0], layer_norm(layer.norms[2], q)))) for q in queries]
        attention = torch.zeros(len(queries), len(memory))
        attention[:, real or range(len(memory))] = torch.stack(weights)
    logits = [(layer_norm(decoder.norm, q) * w).sum() for q, w in zip(queries, decoder.head_weight, strict=True)]
    return torch.stack(logits) + decoder.head_bias, attention


MODELS = (concat, concat_lstm, concat_vad, dual_stage, late_fusion, lstm_vad)
MODELS += (quality_gated, staged_concat, statistics_mlp, text_anchored)
REFERENCES = {f.__name__: f for f in MODELS}
