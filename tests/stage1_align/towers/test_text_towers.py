"""Published text encoders in their exact published layout, with their tokenizers."""

import io
import json

import pytest
import torch
from helpers import published_tiny
from helpers.rounding import assert_same_up_to_rounding
from helpers.stage1_tiny import assert_windows_hold_all, encode_checked
from safetensors.torch import load_file, save_file

from shared.errors import UserError
from stage1_align.towers.text_open_clip import OpenClipText
from stage1_align.towers.text_transformer import TransformerText
from stage1_align.towers.tokenizers import TOKENIZERS, HuggingFaceTokenizer, OpenClipTokenizer, SentencePieceTokenizer

TEXTS = ["that is so funny I cannot stop laughing", "I am sad about the dog", "we laughed together", "a sad old song"]
TEXT_INPUTS = [TEXTS[0], "we laughed", " ", "a dog " * 40]  # the third is blank, the fourth too long
SIZE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


def roberta(folder, vocab=True):
    """A tiny RoBERTa, as published, that knows the words of TEXTS."""
    return published_tiny.roberta(folder, TEXTS, vocab=vocab)


def xlm_roberta(folder):
    """As FacebookAI/xlm-roberta-base: sentencepiece.bpe.model alone, ids shifted by one, <mask> after the pieces."""
    import sentencepiece
    from transformers import XLMRobertaConfig, XLMRobertaForMaskedLM

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 3), model_writer=model, vocab_size=60, hard_vocab_limit=False, minloglevel=2
    )
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    config = XLMRobertaConfig(vocab_size=len(pieces) + 2, max_position_embeddings=26, type_vocab_size=1, **SIZE)
    torch.manual_seed(0)
    XLMRobertaForMaskedLM(config).save_pretrained(folder)
    (folder / "sentencepiece.bpe.model").write_bytes(model.getvalue())
    return folder, pieces


def bert(folder):
    """As thenlper/gte-base: BertModel without a prefix and with a pooler, half precision, vocab.txt."""
    from transformers import BertConfig, BertModel

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted({w.lower() for text in TEXTS for w in text.split()})]
    config = BertConfig(vocab_size=len(words), max_position_embeddings=24, **SIZE)
    torch.manual_seed(0)
    BertModel(config).half().save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("published")
    for name in ("roberta", "xlmr", "bert"):
        (root / name).mkdir()
    return {"roberta": roberta(root / "roberta"), "xlmr": xlm_roberta(root / "xlmr")[0], "bert": bert(root / "bert")}


def published(folder, **options):
    options = {"context_length": 24, **options}
    return TransformerText.from_options({"pretrained": str(folder), **options}, 8).eval()


@pytest.mark.parametrize("name", ["roberta", "xlmr", "bert"])
def test_published_encoder_equals_its_model_class(folders, name):
    """Against the model class, called directly."""
    from transformers import BertModel, RobertaForMaskedLM, XLMRobertaForMaskedLM

    tower = published(folders[name])
    kind = {"roberta": RobertaForMaskedLM, "xlmr": XLMRobertaForMaskedLM, "bert": BertModel}[name]
    model = kind.from_pretrained(folders[name], dtype=torch.float32).eval()
    model = getattr(model, "roberta", model)
    ids = tower.tokenizer("we laughed together")
    expected = model(input_ids=torch.tensor([ids])).last_hidden_state  # (1, L, 16)
    encoded = tower.encode_prepared(["we laughed together"])
    assert_same_up_to_rounding(encoded.sequence, expected)
    pooled = torch.nn.functional.normalize(tower.project(expected.mean(1)), dim=-1)  # (1, 8)
    assert_same_up_to_rounding(encoded.pooled, pooled)
    assert len(tower.blocks()) == 2 and all(block in list(tower.net.modules()) for block in tower.blocks())


def test_sentencepiece_ids_equal_the_published_ones(tmp_path):
    """XLM-R's ids by hand: <s>, each piece shifted by one (the fairseq offset) except
    <unk> at 3, </s>."""
    folder, pieces = xlm_roberta(tmp_path)
    tokenizer = HuggingFaceTokenizer.load(folder)
    for text in [*TEXTS, "we  laughed\tＴＯＧＥＴＨＥＲ ﬁne ", "unseen: Ω"]:
        assert tokenizer(text) == [0, *(i + 1 if i else 3 for i in pieces.encode(text)), 2]
    assert len(tokenizer) == len(pieces) + 2


def open_clip_checkpoint(path, prefix="", wrap=False, layout="clip"):
    """A CLIP with both towers, as open_clip saves it: its text tower at the root (CLIP) or under text. (custom)."""
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg, CustomTextCLIP

    torch.manual_seed(1)
    cfg = {"context_length": 12, "width": 16, "heads": 2, "layers": 2}
    vision = CLIPVisionCfg(image_size=16, patch_size=16, layers=1, width=16, head_width=16)
    model = {"clip": CLIP, "custom": CustomTextCLIP}[layout](8, vision, CLIPTextCfg(**cfg)).eval()
    state = {prefix + name: value for name, value in model.state_dict().items()}
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"epoch": 3, "state_dict": state} if wrap else state, path)
    return model, cfg


@pytest.mark.parametrize(
    "file, prefix, wrap, layout",
    [("a.safetensors", "", False, "clip"), ("b.pt", "module.", True, "clip"), ("c.bin", "", False, "custom")],
)
def test_open_clip_text_tower_equals_open_clip(tmp_path, file, prefix, wrap, layout):
    from open_clip.tokenizer import SimpleTokenizer

    model, cfg = open_clip_checkpoint(tmp_path / file, prefix, wrap, layout)
    options = {"text_cfg": cfg, "pretrained": str(tmp_path / file), "projection": "own"}
    tower = OpenClipText.from_options(options, 8).eval()
    given = ["We laughed, together!", "dog " * 40]
    ids = SimpleTokenizer(context_length=12)(given)
    encoded = tower(**tower.collate(given))  # open_clip cuts long texts, as training does
    assert_same_up_to_rounding(encoded.pooled, model.encode_text(ids, normalize=True))
    assert encoded.mask.sum(1).tolist() == [7, 12]  # <start> we laughed , together ! <end>
    linear = OpenClipText.from_options({**options, "projection": "linear", "max_pool": True}, 5).eval()
    torch.testing.assert_close(linear(**linear.collate(given)).sequence, encoded.sequence, rtol=0, atol=1e-6)
    assert linear.encode_prepared(given).pooled.shape == (2, 5) and len(linear.blocks()) == 2


@pytest.mark.parametrize("kind", [{}, {"pool_type": "eos", "eos_id": 49407}, {"pool_type": "first"}])
def test_short_texts_equal_padded_texts_at_less_cost(kind):
    cfg = {"context_length": 24, "width": 16, "heads": 2, "layers": 2, **kind}
    torch.manual_seed(0)
    tower = OpenClipText.from_options({"text_cfg": cfg, "max_pool": True}, 8)
    ids, mask = tower.tokenizer.encode(["a dog", "we laughed, together!", " "], 24)
    positions = []
    tower.blocks()[0].register_forward_hook(lambda block, inputs, output: positions.append(output.shape[1]))

    weight = torch.randn(3, 24, 16)

    def gradient(encoded):
        tower.zero_grad()
        loss = encoded.pooled[:2].var() + (encoded.sequence * weight[:, : encoded.sequence.shape[1]]).sum()
        loss.backward()
        return {name: parameter.grad.clone() for name, parameter in tower.named_parameters()}

    short, whole = tower(ids, mask), tower(*(torch.nn.functional.pad(x, (0, 24 - ids.shape[1])) for x in (ids, mask)))
    assert positions == [ids.shape[1], 24] == [7, 24]
    assert_same_up_to_rounding(short.pooled, whole.pooled)
    assert_same_up_to_rounding(short.sequence, whole.sequence[:, :7])
    theirs = gradient(whole)
    for name, value in gradient(short).items():
        assert_same_up_to_rounding(value, theirs[name])


@pytest.mark.parametrize("kind", [{"pool_type": "last"}, {"no_causal_mask": True}])
def test_towers_that_read_the_padding_run_all_positions(kind):
    cfg = {"context_length": 24, "width": 16, "heads": 2, "layers": 2, **kind}
    tower = OpenClipText.from_options({"text_cfg": cfg}, 8).eval()
    ids, mask = tower.tokenizer.encode(["a dog", "we laughed, together!"], 24)
    own = tower.net(torch.nn.functional.pad(ids, (0, 24 - ids.shape[1])))[0]
    expected = torch.nn.functional.normalize(tower.project(own), dim=1)
    torch.testing.assert_close(tower(ids, mask).pooled, expected, rtol=0, atol=1e-6)


def test_named_model_is_built_without_a_hub():
    small = {"layers": 1, "width": 16, "heads": 2}
    tower = OpenClipText.from_options({"model": "ViT-B/32-quickgelu", "text_cfg": small}, 8)
    assert tower.options.text_cfg["context_length"] == tower.options.context_length == 77
    assert tower.options.quick_gelu and type(tower.blocks()[0].mlp.gelu).__name__ == "QuickGELU"
    assert OpenClipText.from_options({"model": "ViT-B-32", "text_cfg": small}, 8).options.quick_gelu is False


@pytest.fixture(scope="module", params=["roberta", "xlmr", "bert", "open_clip"])
def tower(request, folders):
    if request.param == "open_clip":
        torch.manual_seed(0)
        cfg = {"context_length": 24, "width": 16, "heads": 2, "layers": 2}
        return OpenClipText.from_options({"text_cfg": cfg, "max_pool": True}, 8).eval()
    return published(folders[request.param], max_pool=request.param == "bert")


def test_batch_equals_single_with_absent_and_long_texts(tower):
    batch = encode_checked(tower, TEXT_INPUTS)
    assert not batch.mask[2].any() and (batch.pooled[2] == 0).all() and (batch.sequence[2] == 0).all()
    assert_windows_hold_all(tower, TEXT_INPUTS[3], batch, 3)
    torch.testing.assert_close(batch.pooled[[0, 1, 3]].norm(dim=1), torch.ones(3))
    assert (batch.pooled[0] - batch.pooled[1]).abs().max() > 1e-3


def test_truncated_text_keeps_its_end_token(tower):
    long = tower.tokenizer(TEXT_INPUTS[3])
    ids, mask = tower.tokenizer.encode([TEXT_INPUTS[3]], 24)
    assert len(long) > 24 and mask.all()
    assert ids[0].tolist() == [*long[:23], long[-1]]


def test_long_texts_that_differ_after_the_context_are_different(tower):
    same, other = "a dog " * 60 + "we laughed", "a dog " * 60 + "a sad song"
    pooled = tower.encode_prepared([same, other, same, "we laughed"]).pooled
    assert (pooled[0] - pooled[1]).abs().max() > 1e-4 and (pooled[0] - pooled[2]).abs().max() < 1e-6
    assert_same_up_to_rounding(pooled[3], tower.encode_prepared(["we laughed"]).pooled[0])
    cut = tower(**tower.collate([same, other])).pooled
    assert (cut[0] - cut[1]).abs().max() < 1e-6  # training reads as much as its positions hold


@pytest.mark.parametrize("mark", ["<end_of_text>", "&lt;end_of_text&gt;", "</s>", "[SEP]", "[PAD]", "<pad>", "<unk>"])
def test_words_that_look_like_tokens_of_the_model_stay_words(tower, mark):
    ids = tower.tokenizer(f"a {mark} dog")
    start, end = tower.tokenizer.marks(ids)
    plain = tower.tokenizer("a dog")
    special = {*start, *end, tower.tokenizer.pad_id} - set(plain[len(start) : -1])
    assert not special & set(ids[len(start) : len(ids) - len(end)])


@pytest.mark.parametrize(
    "text, known",
    [
        ("a sad dog", True),
        ("a sad dog, Ω", True),  # a part is unknown
        ("привет, мир!", False),  # known punctuation says nothing
        ("你好。a", False),
        ("...", False),
        ("\u200b\u200d \x00", False),
        ("\ufffd\ufffd a \ufffd", False),
        ("a sad \ud83d dog", True),  # half a character, as a broken decoder leaves it
    ],
)
@pytest.mark.parametrize("name", ["xlmr", "bert", "sentencepiece"])
def test_text_is_absent_when_most_of_it_is_unknown(folders, name, text, known):
    tokenizer = (
        SentencePieceTokenizer.train(TEXTS, 60) if name == "sentencepiece" else HuggingFaceTokenizer.load(folders[name])
    )
    assert bool(tokenizer.known(text)) is known
    assert tokenizer.read("a sad dog, Ω")[1:] == (7, 1)


def test_byte_tokenizers_know_every_letter_but_not_what_is_unreadable(folders):
    for tokenizer in (OpenClipTokenizer(), HuggingFaceTokenizer.load(folders["roberta"])):
        assert tokenizer.read("привет, 你好!")[1:] == (8, 0) and tokenizer.read("😂")[1:] == (1, 0)
        for text in ("\ufffd\ufffd", "?!", "", " \u3000", "\u200b"):
            assert tokenizer.known(text) == []


def test_corpus_of_more_letters_than_the_vocabulary_is_one_line():
    texts = ["".join(map(chr, range(0x4E00 + i, 0x4E00 + i + 30))) for i in range(0, 900, 30)]
    with pytest.raises(UserError, match=r"90\d different characters, more than vocab_size 512; set towers") as e:
        SentencePieceTokenizer.train(texts, 512)
    assert "\n" not in str(e.value)
    assert SentencePieceTokenizer.train(texts, 1806).known(texts[0])


def test_tower_is_rebuilt_without_its_checkpoint(tower, tmp_path):
    """From config.json, weights and tokenizer folder alone."""
    config = json.loads(json.dumps(tower.config()))
    assert config["pretrained"] is None
    again = type(tower).from_options(config, 8).eval()
    again.load_state_dict(tower.state_dict())
    kind = tower.tokenizer.kind
    tower.tokenizer.save(tmp_path / "a")
    again.tokenizer = TOKENIZERS.get(kind).load(tmp_path / "a")
    again.tokenizer.save(tmp_path / "b")
    for file in (tmp_path / "a").iterdir():  # the digest of an export does not depend on how often it was loaded
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()
    a, b = tower.encode_prepared(TEXT_INPUTS), again.encode_prepared(TEXT_INPUTS)
    torch.testing.assert_close(a.pooled, b.pooled, rtol=0, atol=0)
    assert again.config() == config


def test_every_trained_parameter_gets_a_gradient(tower):
    for texts in (TEXT_INPUTS, [""]):
        encoded = tower.train()(**tower.collate(texts))
        tower.zero_grad()
        (encoded.pooled.sum() + 0 * encoded.sequence.sum()).backward()
        assert [name for name, p in tower.named_parameters() if p.grad is None] == []
        assert all(torch.isfinite(p.grad).all() for p in tower.parameters())
    tower.eval().zero_grad()


def test_no_hub_is_asked(folders, monkeypatch):
    """Not even when one is allowed: no host name is looked up."""
    import socket

    import huggingface_hub.constants as constants

    asked = []
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *rest, **more: asked.append(host) or [])
    for folder in folders.values():
        published(folder)
    OpenClipText.from_options({"model": "ViT-B-32", "text_cfg": {"layers": 1, "width": 16, "heads": 2}}, 8)
    with pytest.raises(UserError):
        published("FacebookAI/roberta-base")
    assert asked == []


def test_published_configuration_can_be_changed_and_its_license_is_kept(folders):
    tower = published(folders["roberta"], model_cfg={"hidden_dropout_prob": 0.3})
    assert tower.config()["model_cfg"]["hidden_dropout_prob"] == 0.3
    assert tower.config()["license"] == "mit" and published(folders["bert"]).config()["license"] == ""
    assert TransformerText.corpus_tokenizer({"pretrained": "x"}, TEXTS) is None
    assert OpenClipText.corpus_tokenizer({}, TEXTS) is None
    assert len(TransformerText.corpus_tokenizer({"vocab_size": 60}, TEXTS)) <= 60


def test_incomplete_tokenizer_is_refused(tmp_path):
    """Without the files, transformers returns a tokenizer of five entries that maps every text to the same ids."""
    roberta(tmp_path, vocab=False)
    empty = HuggingFaceTokenizer.load(tmp_path)
    assert empty("we laughed together") == empty("a sad old song")
    with pytest.raises(UserError, match="has only 5 pieces, the model 275"):
        published(tmp_path)


def test_tokenizer_of_another_model_is_refused(folders):
    bpe = HuggingFaceTokenizer.load(folders["roberta"])
    with pytest.raises(UserError, match="do not belong together"):
        bpe.check(200)
    with pytest.raises(UserError, match="only 275 pieces, the model 50265"):
        bpe.check(50265)
    assert bpe.check(300) is bpe  # padded to a round number

    class ConstantTokenizer(SentencePieceTokenizer):
        def __call__(self, text):
            return [1]

    constant = ConstantTokenizer(SentencePieceTokenizer.train(TEXTS, 60).model)
    with pytest.raises(UserError, match="different texts the same ids"):
        constant.check(len(constant))


def test_damaged_and_foreign_folders_are_refused_in_one_line(folders, tmp_path):
    def fails(match, **options):
        with pytest.raises(UserError, match=match) as error:
            TransformerText.from_options({"context_length": 24, **options}, 8)
        assert "\n" not in str(error.value)

    fails("config.json is missing", pretrained="FacebookAI/roberta-base")  # names on a hub are not resolved
    fails("is more than the 24 positions of", pretrained=str(folders["roberta"]), context_length=25)
    fails("no architecture 'birt'", architecture="birt")
    weights = load_file(folders["roberta"] / "model.safetensors")
    config = (folders["roberta"] / "config.json").read_text()
    (tmp_path / "config.json").write_text(config)
    fails("no model.safetensors", pretrained=str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"\x08" + bytes(30))
    fails("cannot be loaded", pretrained=str(tmp_path))
    save_file({k: v for k, v in weights.items() if "layer.1.output.dense" not in k}, tmp_path / "model.safetensors")
    fails("weights are missing.*output.dense", pretrained=str(tmp_path))
    (tmp_path / "config.json").write_text(config.replace('"intermediate_size": 32', '"intermediate_size": 48'))
    save_file(weights, tmp_path / "model.safetensors")
    fails(r"intermediate.dense.bias is \(32,\), not \(48,\)", pretrained=str(tmp_path))
    (tmp_path / "config.json").write_text(config.replace('"num_hidden_layers": 2', '"num_hidden_layers": 1'))
    fails("counts 1 blocks, the weights hold more", pretrained=str(tmp_path))
    (tmp_path / "config.json").write_text(config)
    fails("tokenizer has only", pretrained=str(tmp_path), model_cfg={"num_hidden_layers": 1})  # left out on purpose
    (tmp_path / "config.json").write_text(config.replace('"hidden_size": 16', '"hidden_size": "16"'))
    fails("expected int, got str", pretrained=str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "bird", "auto_map": {"AutoConfig": "x--y.Z"}}')
    fails("cannot be loaded", pretrained=str(tmp_path))  # needs its own code, which is never run
    with pytest.raises(UserError, match="damaged"):
        (tmp_path / SentencePieceTokenizer.FILE).write_bytes(b"no model")
        SentencePieceTokenizer.load(tmp_path)
    with pytest.raises(UserError, match="damaged"):
        (tmp_path / OpenClipTokenizer.FILE).write_bytes(b"no merges")
        OpenClipTokenizer.load(tmp_path)


def test_wrong_open_clip_text_options_are_refused_in_one_line(tmp_path):
    def fails(match, embed_dim=8, **options):
        with pytest.raises(UserError, match=match) as error:
            OpenClipText.from_options(options, embed_dim)
        assert "\n" not in str(error.value)

    small = {"width": 16, "heads": 2, "layers": 1}
    fails("did you mean 'ViT-B-32'", model="ViT-B-23")
    fails("did you mean 'layers'", text_cfg={"layer": 2})
    tiny = {"model": "ViT-B-32", "pretrained": "w.pt", "text_cfg": small}
    fails(r"does not say its activation; .* QuickGELU \(openai, .* set quick_gelu to true or false", **tiny)
    fails("no such checkpoint file", **tiny, quick_gelu=True)
    fails("roberta-base of transformers", model="roberta-ViT-B-32")
    fails("no such checkpoint file", text_cfg=small, pretrained="laion2b_s34b_b79k")
    fails("is more than the model's 77 positions", text_cfg=small, context_length=78)
    fails("did you mean 'own'", text_cfg=small, projection="won")
    fails("gives 512", model="ViT-B-32", projection="own")
    (tmp_path / "x.safetensors").write_bytes(b"\x08" + bytes(30))
    fails("cannot be read as weights", text_cfg=small, pretrained=str(tmp_path / "x.safetensors"))
    open_clip_checkpoint(tmp_path / "y.safetensors")
    fails("another model", text_cfg=small, pretrained=str(tmp_path / "y.safetensors"))
    save_file({"visual.proj": torch.zeros(2)}, tmp_path / "z.safetensors")
    fails("holds no text tower", text_cfg=small, pretrained=str(tmp_path / "z.safetensors"))


def test_training_keeps_a_published_tokenizer(folders, clips):
    """A tokenizer is trained on the corpus only for a tower that has none."""
    import copy

    from helpers.stage1_tiny import TOWERS

    from stage1_align.config import AlignConfig, PairConfig, TowerConfig, TowersConfig
    from stage1_align.data.pairs import PairData
    from stage1_align.setup import build_encoders

    specs = {modality: TowerConfig(**copy.deepcopy(spec)) for modality, spec in TOWERS.items()}
    towers = TowersConfig(**specs, embed_dim=8)
    data = PairData(PairConfig(), 8, 0, clips)
    trained = build_encoders(AlignConfig(clips, clips, towers), data).text
    assert trained.tokenizer.kind == "sentencepiece" and len(trained.tokenizer) == trained.options.vocab_size
    towers.text.options = {"pretrained": str(folders["roberta"]), "context_length": 24}
    kept = build_encoders(AlignConfig(clips, clips, towers), data).text
    assert kept.tokenizer.kind == "huggingface" and len(kept.tokenizer) == kept.options.vocab_size == 275


def test_rows_grouped_by_length_give_the_outputs_and_gradients_of_one_padded_batch():
    """Forty texts, some of them empty, in float64."""
    torch.manual_seed(0)
    config = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, **SIZE}
    tower = TransformerText(TransformerText.Options(vocab_size=30, context_length=20, model_cfg=config), 8).double()
    ends = torch.randint(0, 21, (40,))  # (B,)
    mask = torch.arange(20) < ends[:, None]  # (B, L)
    ids = torch.randint(5, 30, (40, 20)) * mask  # (B, L)
    assert (ends == 0).any() and (ends == 20).any()
    weight = torch.randn(40, 20, 16, dtype=torch.float64) * mask[..., None]  # (B, L, C)

    def gradients(sequence):
        tower.zero_grad()
        (sequence * weight).sum().backward()
        return [parameter.grad.clone() for parameter in tower.net.parameters() if parameter.grad is not None]

    attention = mask | (torch.arange(20) == 0)  # (B, L)
    grouped = tower._forward_by_length(ids, attention)  # (B, L, C)
    whole = tower.net(input_ids=ids, attention_mask=attention.long()).last_hidden_state  # (B, L, C)
    torch.testing.assert_close(grouped * mask[..., None], whole * mask[..., None], rtol=1e-10, atol=1e-12)
    ours, theirs = gradients(grouped), gradients(whole)
    assert len(ours) > 10
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    assert_same_up_to_rounding(tower.float()(ids, mask).sequence, (whole * mask[..., None]).float())
