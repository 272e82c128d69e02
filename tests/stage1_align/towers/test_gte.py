"""Alibaba's GTE encoders in their published layout, against a reference that computes them step by step."""

import json
import math

import pytest
import torch
from helpers.published_tiny import HEADS, HIDDEN, INNER, LAYERS, NTK, WORDS
from helpers.published_tiny import gte as publish
from helpers.rounding import assert_same_up_to_rounding
from helpers.stage1_tiny import encode_checked
from safetensors.torch import load_file
from torch.nn.functional import layer_norm, normalize

from shared.errors import UserError
from stage1_align.towers.text_transformer import TransformerText

TEXTS = ["we laughed together", "a sad old song", "a dog", "that is so funny , the old dog laughed ."]


def reference(folder, ids):
    """last_hidden_state (L, HIDDEN) of one text's ids, in float64, one head, query and pair at a time: a
    post-norm BERT with rotary positions and a gated inner layer (GeGLU)."""
    config = json.loads((folder / "config.json").read_text())
    weights = {name.removeprefix("new."): w.double() for name, w in load_file(folder / "model.safetensors").items()}
    head, scaling = HIDDEN // HEADS, config["rope_scaling"]
    factor = scaling["factor"] if scaling else 1.0

    def norm(x, name):
        return layer_norm(x, (HIDDEN,), weights[f"{name}.weight"], weights[f"{name}.bias"], config["layer_norm_eps"])

    def rotate(vector, position):
        """Pair i is (i, i + head / 2)."""
        out = vector.clone()
        for i in range(head // 2):
            speed = (config["rope_theta"] * factor) ** (-2 * i / head) / factor ** (2 / head)
            cos, sin = math.cos(position * speed), math.sin(position * speed)
            a, b = vector[i], vector[i + head // 2]
            out[i], out[i + head // 2] = a * cos - b * sin, b * cos + a * sin
        return out

    x = weights["embeddings.word_embeddings.weight"][ids]  # (L, HIDDEN)
    if config["type_vocab_size"]:
        x = x + weights["embeddings.token_type_embeddings.weight"][0]
    x = norm(x, "embeddings.LayerNorm")
    for i in range(LAYERS):
        layer = {n.removeprefix(f"encoder.layer.{i}."): w for n, w in weights.items() if f".{i}." in n}
        packed = x @ layer["attention.qkv_proj.weight"].T + layer["attention.qkv_proj.bias"]  # (L, 3 HIDDEN)
        mixed = torch.zeros_like(x)  # (L, HIDDEN)
        for h in range(HEADS):
            columns = slice(h * head, (h + 1) * head)
            q, k, v = (part[:, columns] for part in packed.split(HIDDEN, 1))  # (L, head) each
            for row in range(len(ids)):
                query = rotate(q[row], row)
                scores = torch.stack([query @ rotate(k[column], column) for column in range(len(ids))])  # (L,)
                mixed[row, columns] = (scores / math.sqrt(head)).softmax(0) @ v
        x = x + mixed @ layer["attention.o_proj.weight"].T + layer["attention.o_proj.bias"]
        x = norm(x, f"encoder.layer.{i}.attn_ln")
        up, gate = (x @ layer["mlp.up_gate_proj.weight"].T).split(INNER, 1)  # (L, INNER) each
        gated = up * gate * 0.5 * (1 + torch.erf(gate / math.sqrt(2)))  # (L, INNER)
        x = x + gated @ layer["mlp.down_proj.weight"].T + layer["mlp.down_proj.bias"]
        x = norm(x, f"encoder.layer.{i}.mlp_ln")
    return x


def tower_of(folder, **options):
    return TransformerText.from_options({"pretrained": str(folder), "context_length": 24, **options}, 8).eval()


@pytest.mark.parametrize(
    "prefix, changes",
    [
        ("new.", {}),
        ("", {"type_vocab_size": 1, "rope_theta": 20, "rope_scaling": {"factor": 8.0, "type": "ntk"}}),
        ("new.", {"type_vocab_size": 2, "rope_scaling": None}),
    ],
)
def test_published_gte_folder_equals_the_reference(tmp_path, prefix, changes):
    folder = publish(tmp_path, prefix, **changes)
    tower = tower_of(folder)
    assert tower.options.architecture == "gte" and tower.options.license == "apache-2.0"
    for text in TEXTS:
        ids = [WORDS.index(word) for word in ["[CLS]", *text.split(), "[SEP]"]]
        assert tower.tokenizer(text) == ids
        expected = reference(folder, ids).float()  # (L, HIDDEN)
        encoded = tower.encode_prepared([text])
        assert_same_up_to_rounding(encoded.sequence[0], expected)
        pooled = normalize(tower.project(expected.mean(0)), dim=0)  # (8,)
        assert_same_up_to_rounding(encoded.pooled[0], pooled)
    blocks = tower.blocks()
    assert len(blocks) == LAYERS and all(type(block).__name__ == "GteLayer" for block in blocks)


def test_reference_depends_on_positions_and_their_scaling(tmp_path):
    """Otherwise it would agree with any tower."""
    plain = publish(tmp_path / "plain", rope_scaling=None)
    scaled = publish(tmp_path / "scaled", rope_scaling=NTK)
    ids = [2, 5, 6, 7, 3]
    assert (reference(plain, ids) - reference(scaled, ids)).abs().max() > 1e-2
    assert (reference(plain, ids)[1] - reference(plain, [2, 6, 5, 7, 3])[2]).abs().max() > 1e-2


def test_batch_equals_single_and_tower_is_rebuilt_without_its_folder(tmp_path):
    tower = tower_of(publish(tmp_path), model_cfg={"hidden_dropout_prob": 0.0})
    texts = [*TEXTS, " ", "a dog " * 40]
    batch = encode_checked(tower, texts)
    assert batch.mask.sum(1).tolist() == [5, 6, 4, 12, 0, 88] and (batch.pooled[4] == 0).all()  # 4 windows of 22
    config = json.loads(json.dumps(tower.config()))
    assert config["pretrained"] is None and config["model_cfg"]["hidden_dropout_prob"] == 0.0
    again = TransformerText.from_options(config, 8).eval()
    again.load_state_dict(tower.state_dict())
    again.tokenizer = tower.tokenizer
    torch.testing.assert_close(again.encode_prepared(texts).sequence, batch.sequence, rtol=0, atol=0)
    tower.train()(**tower.collate(texts)).pooled.sum().backward()
    assert [name for name, parameter in tower.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("kind", ["new", "bird"])
def test_code_in_a_folder_is_not_run_and_no_question_is_asked(tmp_path, monkeypatch, capfd, kind):
    """By default, transformers asks at the terminal whether to run the code."""
    mark = tmp_path / "was_run"
    code = f"open({str(mark)!r}, 'w')\nfrom transformers import BertConfig as Theirs\n"
    folder = publish(tmp_path / "gte", auto_map={"AutoConfig": "code.Theirs"}, model_type=kind)
    (folder / "code.py").write_text(code)
    asked = []
    monkeypatch.setattr("builtins.input", lambda *prompt: asked.append(prompt) or "y")
    if kind == "new":
        tower_of(folder)
    else:
        with pytest.raises(UserError, match="cannot be loaded"):
            tower_of(folder)
    assert asked == [] and not mark.exists() and capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"logn_attention_scale": True}, "logn_attention_scale True is not supported, only False"),
        ({"position_embedding_type": "absolute"}, "position_embedding_type 'absolute' is not supported"),
        ({"layer_norm_type": "rms_norm"}, "layer_norm_type 'rms_norm' is not supported"),
        ({"pack_qkv": False}, "pack_qkv False is not supported"),
        ({"rope_parameters": {"rope_theta": 1}}, "rope_parameters .* is not supported"),
        ({"rope_scaling": {**NTK, "mixed_b": 0.6}}, "mixed_b.* is not supported, only type ntk"),
        ({"rope_scaling": {"factor": 2.0, "type": "dynamic"}}, "dynamic.* is not supported, only type ntk"),
        ({"rope_scaling": {"factor": "2", "type": "ntk"}}, "only type ntk with a factor of 1 or more"),
        ({"hidden_size": None}, "cannot be loaded"),
        ({"num_attention_heads": 0}, "cannot be loaded"),
        ({"intermediate_size": 48}, r"is \\(48, 16\\), not|do not fit config"),
    ],
)
def test_unsupported_gte_configuration_is_refused_in_one_line(tmp_path, changes, message):
    publish(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(UserError, match=message) as error:
        tower_of(tmp_path)
    assert "\n" not in str(error.value)


def test_old_transformers_is_told_the_version_with_gte(tmp_path, monkeypatch):
    import transformers

    monkeypatch.setattr(transformers, "CONFIG_MAPPING", set(transformers.CONFIG_MAPPING) - {"gte"})
    monkeypatch.setattr(transformers, "__version__", "5.17.0")
    with pytest.raises(UserError, match=r"need transformers 5\.18 or later, installed is 5\.17\.0") as error:
        tower_of(publish(tmp_path))
    assert "\n" not in str(error.value)
