"""Text: open_clip's own text towers (Radford et al. 2021, arXiv 2103.00020; Ilharco et al. 2021, doi
10.5281/zenodo.5143773; Zhai et al. 2023, arXiv 2303.15343; Yu et al. 2022, arXiv 2205.01917), with its own tokenizer,
which comes with the package, or that of a folder. No hub is asked."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from shared.errors import UserError
from shared.registry import nearest
from shared.text import one_line
from stage1_align.towers.base import Encoded
from stage1_align.towers.open_clip_source import read_state
from stage1_align.towers.text_tower import TextTower
from stage1_align.towers.tokenizers import HuggingFaceTokenizer, OpenClipTokenizer, Tokenizer


@dataclass
class OpenClipTextOptions:
    RENAMED: ClassVar[dict[str, str]] = {"peak": "max_pool", "licence": "license"}

    model: str | None = None
    """Name of an open_clip model (`ViT-B-32`); None builds the tower from `text_cfg`."""
    pretrained: str | None = None
    """Checkpoint file of that model (.safetensors, .pt, .bin) in open_clip's layout, of which the text tower alone is
    taken; None starts from random weights. A tag is not followed: download its file first."""
    tokenizer: str | None = None
    """Folder of the tokenizer's files, where it is not open_clip's own (SigLIP): the model's published folder has
    them."""
    text_cfg: dict = field(default_factory=dict)
    """Fields of open_clip's text configuration; with `model`, changes to that model's."""
    quick_gelu: bool | None = None
    """The activation of OpenAI's own weights; None: what the model says."""
    context_length: int | None = None
    """Tokens a text is cut to; None: all the model has positions for."""
    projection: Literal["linear", "own"] = "linear"
    """From the pooled text to the shared space: a new layer, or the model's own, which keeps its alignment with its
    image tower; the towers' embed_dim must then be the model's."""
    max_pool: bool = False
    """Pool the maximum over the tokens beside the model's own pooling."""
    license: str = ""
    """License of the pretrained weights, for the model card."""


class OpenClipText(TextTower):
    """Texts to token features (L, C), and, pooled where the model pools (CLIP: at the end mark, SigLIP: at the last of
    all positions, CoCa: at a class token behind them), one vector in the shared space. The features are those behind
    the last norm; CoCa's, as open_clip gives them to its decoder, before it.

    What the options leave to the model stands in `self.options` once it is built.
    """

    Options = OpenClipTextOptions
    POOLS_WITHIN: ClassVar[tuple[str, ...]] = ("argmax", "eos", "first")
    """Poolings that take a token of the text itself; the others look at the padding behind it."""

    def __init__(self, options: OpenClipTextOptions, embed_dim: int):
        from open_clip.model import CLIPTextCfg, _build_text_tower

        cfg, own_dim, quick_gelu = _configuration(options, embed_dim)
        room = cfg["context_length"]
        length = options.context_length or room
        if length > room:
            raise UserError(f"context_length {length} is more than the model has positions for: {room}")
        if options.projection not in ("linear", "own"):
            raise UserError(f"no projection {options.projection!r}: {nearest(options.projection, ('linear', 'own'))}")
        keeps = options.projection == "own"
        if keeps and (own_dim != embed_dim or options.max_pool or cfg["proj_type"] == "none"):
            raise UserError(
                f"projection: own: it is {cfg['proj_type']} and gives {own_dim}; set towers.embed_dim to that and "
                "max_pool to false, or projection to linear"
            )
        filled = dataclasses.replace(
            options, model=None, tokenizer=None, text_cfg=cfg, quick_gelu=quick_gelu, context_length=length
        )
        super().__init__(filled, embed_dim)
        self.net = _build_text_tower(own_dim, CLIPTextCfg(**cfg), quick_gelu)
        self.net.output_tokens = True
        if not keeps:
            self.net.text_projection = None
        if options.pretrained:
            _load(self.net, Path(options.pretrained))
        if keeps:
            self.project, self.ADDED = _linear(self.net.text_projection), ("query",)
            self.net.text_projection = None
        else:
            self.project = self._projection()
        self.tokenizer = _tokenizer(options, cfg)

    def prepare_text(self, text: str) -> str:
        """The text as the model's own cleaning leaves it: SigLIP's drops punctuation."""
        cfg = self.options.text_cfg
        if not cfg["hf_tokenizer_name"]:
            return text  # open_clip's own tokenizer does it
        from open_clip.tokenizer import get_clean_fn

        return get_clean_fn((cfg["tokenizer_kwargs"] or {}).get("clean", "whitespace"))(text)

    @property
    def width(self) -> int:
        return self.net.width

    def blocks(self) -> list[nn.Module]:
        """The residual attention blocks, from the tokens to the output."""
        return list(self.net.transformer.resblocks)

    def forward(self, ids: Tensor, mask: Tensor) -> Encoded:
        """ids int64 (B, L), mask bool (B, L)."""
        pooled, sequence = self._read(ids)  # (B, C), (B, L, C)
        present = mask.any(1, keepdim=True)  # (B, 1)
        if self.options.max_pool:
            highest = sequence.float().masked_fill(~mask[..., None], -torch.inf).amax(1)  # (B, C)
            pooled = torch.cat([pooled.float(), torch.where(present, highest, 0.0)], 1)  # (B, 2 C)
        with torch.autocast(mask.device.type, enabled=False):
            pooled = nn.functional.normalize(self.project(pooled.float()), dim=-1)  # (B, D)
        return Encoded(pooled * present, sequence.float() * mask[..., None], mask, None)

    def _read(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """What open_clip's tower, which always runs over all its positions, makes of ids (B, L): pooled (B, C) and
        sequence (B, L, C). Under causal attention no token sees what is behind it, so the positions after the longest
        text are left out: the same numbers for a quarter of the work, with captions of 20 tokens in 77 positions."""
        net, length = self.net, ids.shape[1]
        if net.attn_mask is None or net.cls_emb is not None or net.pool_type not in self.POOLS_WITHIN:
            padding = (0, net.context_length - length)
            pooled, sequence = net(nn.functional.pad(ids, padding, value=self.tokenizer.pad_id))  # (B, C), (B, room, C)
            return pooled, sequence[:, :length]
        from open_clip.transformer import text_global_pool

        x = net.token_embedding(ids) + net.positional_embedding[:length]  # (B, L, C)
        x = net.ln_final(net.transformer(x, attn_mask=net.attn_mask[:length, :length]))  # (B, L, C)
        return text_global_pool(x, ids, net.pool_type, eos_token_id=net.eos_id), x


def _configuration(options: OpenClipTextOptions, embed_dim: int) -> tuple[dict, int, bool]:
    """open_clip's text configuration in full, the width its projection gives, and its activation."""
    import open_clip
    from open_clip.model import CLIPTextCfg

    model_cfg = {}
    if options.model:
        name = options.model.replace("/", "-")  # OpenAI's spelling, ViT-B/32
        if name not in open_clip.list_models():
            raise UserError(f"open_clip has no model {options.model!r}: {nearest(name, open_clip.list_models())}")
        model_cfg = open_clip.get_model_config(name)
    values = {**model_cfg.get("text_cfg", {}), **options.text_cfg}
    known = [f.name for f in dataclasses.fields(CLIPTextCfg)]
    for name in values:
        if name not in known:
            raise UserError(f"text_cfg has no field {name!r}: {nearest(name, known)}")
    cfg = dataclasses.asdict(CLIPTextCfg(**values))
    what = options.model or "text_cfg"
    if cfg["hf_model_name"]:
        raise UserError(
            f"{what}: its text tower is {cfg['hf_model_name']} of transformers; download that and "
            "use the tower `transformer` with pretrained: FOLDER"
        )
    odd = sorted({*(cfg["tokenizer_kwargs"] or {})} - {"clean"})
    if odd or cfg["tokenizer_mode"]:
        needs = odd[0] if odd else "a mode of its own"
        raise UserError(f"{what}: its tokenizer needs {needs}, which is not supported; take another model")
    quick_gelu = options.quick_gelu if options.quick_gelu is not None else bool(model_cfg.get("quick_gelu"))
    return cfg, model_cfg.get("embed_dim", embed_dim), quick_gelu


def _tokenizer(options: OpenClipTextOptions, cfg: dict) -> Tokenizer | None:
    """open_clip's own, or that of the folder where the model names another; None where that comes later, with an
    export."""
    name = cfg["hf_tokenizer_name"]
    if options.tokenizer and not name:
        raise UserError(
            f"tokenizer {options.tokenizer}: this model has open_clip's own tokenizer; leave the option out"
        )
    if options.tokenizer:
        return HuggingFaceTokenizer.load(Path(options.tokenizer)).check(cfg["vocab_size"])
    if name and (options.model or options.pretrained):
        raise UserError(
            f"{options.model or 'text_cfg'}: its tokenizer is {name}, not open_clip's own; download it "
            f"(`hf download {name} --exclude '*.safetensors' '*.bin' --local-dir DIR`) and give tokenizer: DIR"
        )
    return None if name else OpenClipTokenizer().check(cfg["vocab_size"])


def _load(net: nn.Module, path: Path) -> None:
    """The text weights of an open_clip checkpoint: under `text.`, or, in CLIP's older layout, beside `visual.`; with or
    without the `module.` of distributed training. Read weights-only; UserError when they do not fit."""
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint file; download the model's open_clip_model.safetensors first")
    state = read_state(path)
    inner = {name.removeprefix("text."): value for name, value in state.items() if name.startswith("text.")}
    own = set(net.state_dict())
    text = inner or {name: value for name, value in state.items() if name in own}
    if not text:
        raise UserError(
            f"{path}: holds no text tower (token_embedding.weight is missing); give an open_clip checkpoint"
        )
    text.pop("attn_mask", None)  # a constant, kept in old files
    if net.text_projection is None:
        text = {name: value for name, value in text.items() if not name.startswith("text_projection")}
    try:
        net.load_state_dict(text)
    except RuntimeError as error:
        reason = one_line(error, 200)
        raise UserError(f"{path}: is of another model ({reason})") from None


def _linear(projection: nn.Module | nn.Parameter) -> nn.Linear:
    """open_clip's text projection, (C, D) or a layer, as a layer."""
    if isinstance(projection, nn.Linear):
        return projection
    layer = nn.Linear(*projection.shape, bias=False)
    layer.weight = nn.Parameter(projection.detach().T.contiguous())  # (D, C)
    return layer
