"""open_clip's text towers outside the CLIP family, SigLIP and CoCa, against open_clip itself."""

import io
import json

import pytest
import torch
from helpers.rounding import assert_same_up_to_rounding
from helpers.stage1_tiny import assert_windows_hold_all, encode_checked

from shared.errors import UserError
from stage1_align.towers.text_open_clip import OpenClipText
from stage1_align.towers.tokenizers import TOKENIZERS

TEXTS = ["that is so funny I cannot stop laughing", "i am sad about the dog", "we laughed together", "a sad old song"]
TEXT_INPUTS = ["We laughed,  TOGETHER!", "a dog", " ", "a sad dog. " * 40, "an unseen Ω, 42"]
VISION = {"image_size": 16, "patch_size": 16, "layers": 1, "width": 16, "head_width": 16}
SIZE = {"context_length": 12, "width": 16, "heads": 2, "layers": 2}


def t5_tokenizer(folder):
    """As in timm/ViT-B-16-SigLIP: T5's sentencepiece converted to tokenizer.json, which pads with the end token."""
    import sentencepiece
    from transformers import T5Tokenizer

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 3),
        model_writer=model,
        vocab_size=60,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    source = folder / "source"
    source.mkdir(parents=True)
    (source / "spiece.model").write_bytes(model.getvalue())
    marks = {"eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>", "extra_ids": 0}
    tokenizer = T5Tokenizer.from_pretrained(source, **marks)
    tokenizer.save_pretrained(folder / "hub")
    return folder / "hub", len(tokenizer)


def siglip(folder):
    from open_clip.model import CLIPTextCfg, CLIPVisionCfg, CustomTextCLIP
    from open_clip.tokenizer import HFTokenizer

    hub, pieces = t5_tokenizer(folder)
    cfg = {
        **SIZE,
        "vocab_size": pieces,
        "hf_tokenizer_name": "timm/tiny-SigLIP",
        "tokenizer_kwargs": {"clean": "canonicalize"},
        "no_causal_mask": True,
        "proj_bias": True,
        "pool_type": "last",
        "norm_kwargs": {"eps": 1e-6},
    }
    model = CustomTextCLIP(8, CLIPVisionCfg(**VISION), CLIPTextCfg(**cfg))
    return model, HFTokenizer(str(hub), context_length=12, clean="canonicalize"), {"text_cfg": cfg, "tokenizer": hub}


def coca(folder):
    from open_clip.coca_model import CoCa, MultimodalCfg
    from open_clip.model import CLIPTextCfg, CLIPVisionCfg
    from open_clip.tokenizer import SimpleTokenizer

    folder.mkdir()
    cfg = {**SIZE, "embed_cls": True, "output_tokens": True}
    vision = CLIPVisionCfg(**VISION, attentional_pool=True, attn_pooler_heads=2, output_tokens=True)
    model = CoCa(8, MultimodalCfg(**SIZE, attn_pooler_heads=2), CLIPTextCfg(**cfg), vision)
    return model, SimpleTokenizer(context_length=12), {"text_cfg": cfg}


@pytest.fixture(scope="module", params=[siglip, coca], ids=["siglip", "coca"])
def published(request, tmp_path_factory):
    """open_clip's model and tokenizer, and the options that load its checkpoint."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("published")
    model, tokenizer, options = request.param(folder / "files")
    with torch.no_grad():  # new models have zeros and tiny values, trained ones do not
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    torch.save({"state_dict": {f"module.{k}": v for k, v in model.state_dict().items()}}, folder / "epoch_3.pt")
    options = {name: str(value) if name == "tokenizer" else value for name, value in options.items()}
    return model.eval(), tokenizer, {**options, "pretrained": str(folder / "epoch_3.pt"), "projection": "own"}


@pytest.fixture(scope="module")
def tower(published):
    return OpenClipText.from_options(published[2], 8).eval()


def test_tower_equals_open_clip(published, tower):
    model, tokenizer, options = published
    ids = tokenizer(TEXT_INPUTS)  # (5, 12)
    expected = model.encode_text(ids, normalize=True)
    model.text.output_tokens = True
    tokens = model.text(ids)[1]  # (5, 12, 16)
    encoded = tower(**tower.collate(TEXT_INPUTS))  # open_clip cuts long texts, as training does
    present_rows = [0, 1, 3, 4]  # the third text is blank
    assert_same_up_to_rounding(encoded.pooled[present_rows], expected[present_rows])
    for row in present_rows:
        steps = int(encoded.mask[row].sum())
        assert_same_up_to_rounding(encoded.sequence[row, :steps], tokens[row, :steps])
    pad = tokenizer("")[0, -1]
    ends = int(tower.tokenizer.kind == "huggingface")  # SigLIP pads with the end token, and the first one counts
    assert encoded.mask[present_rows].sum(1).tolist() == [
        min(12, int((ids[row] != pad).sum()) + ends) for row in present_rows
    ]
    linear = OpenClipText.from_options({**options, "projection": "linear", "max_pool": True}, 5).eval()
    torch.testing.assert_close(linear(**linear.collate(TEXT_INPUTS)).sequence, encoded.sequence, rtol=0, atol=1e-6)


def test_batch_equals_single_with_absent_and_long_texts(tower):
    batch = encode_checked(tower, TEXT_INPUTS)
    assert not batch.mask[2].any() and (batch.pooled[2] == 0).all() and (batch.sequence[2] == 0).all()
    assert_windows_hold_all(tower, TEXT_INPUTS[3], batch, 3)


def test_tower_is_rebuilt_without_its_files_and_trains(tower, tmp_path):
    config = json.loads(json.dumps(tower.config()))
    assert config["pretrained"] is None and config["tokenizer"] is None and config["model"] is None
    again = OpenClipText.from_options(config, 8)
    again.load_state_dict(tower.state_dict())
    tower.tokenizer.save(tmp_path / "tokenizer")
    again.tokenizer = TOKENIZERS.get(tower.tokenizer.kind).load(tmp_path / "tokenizer")
    torch.testing.assert_close(
        again.eval().encode_prepared(TEXT_INPUTS).pooled, tower.encode_prepared(TEXT_INPUTS).pooled, rtol=0, atol=0
    )
    again.train()(**again.collate(TEXT_INPUTS)).pooled.sum().backward()
    assert [name for name, parameter in again.named_parameters() if parameter.grad is None] == []
    again.freeze(1)
    trained = {name for name, parameter in again.named_parameters() if parameter.requires_grad}
    assert "net.ln_final.weight" in trained and "net.transformer.resblocks.1.ln_1.weight" in trained
    assert not trained & {"net.cls_emb", "net.positional_embedding", "net.transformer.resblocks.0.ln_1.weight"}


def test_missing_or_foreign_tokenizer_is_refused_in_one_line(tmp_path):
    def fails(match, **options):
        with pytest.raises(UserError, match=match) as error:
            OpenClipText.from_options(options, 8)
        assert "\n" not in str(error.value)

    hub, pieces = t5_tokenizer(tmp_path / "t5")
    small = {**SIZE, "hf_tokenizer_name": "timm/tiny", "vocab_size": pieces}
    (tmp_path / "empty").mkdir()
    fails("tokenizer is timm/ViT-B-16-SigLIP, .*give tokenizer: DIR", model="ViT-B-16-SigLIP", text_cfg=SIZE)
    fails("no tokenizer here", text_cfg=small, tokenizer=str(tmp_path / "nowhere"))
    fails("cannot be loaded|are incomplete", text_cfg=small, tokenizer=str(tmp_path / "empty"))
    fails("they do not belong together", text_cfg={**small, "vocab_size": pieces - 1}, tokenizer=str(hub))
    fails("leave the option out", text_cfg=SIZE, tokenizer=str(hub))
    fails("needs strip_sep_token, which is not supported", model="ViT-L-14-CLIPA", tokenizer=str(hub))
    for clean, kept in (("whitespace", True), ("canonicalize", False)):  # canonicalize drops punctuation
        cfg = {**small, "tokenizer_kwargs": {"clean": clean}}
        tower = OpenClipText.from_options({"text_cfg": cfg, "tokenizer": str(hub)}, 8)
        with_marks, without = (int(tower.collate([text])["mask"].sum()) for text in ("no!?", "no"))
        assert (with_marks > without) is kept
