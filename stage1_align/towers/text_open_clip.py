"""Text: open_clip's text towers (Radford et al. 2021, arXiv 2103.00020; Ilharco et al. 2021, doi
10.5281/zenodo.5143773; Zhai et al. 2023, arXiv 2303.15343; Yu et al. 2022, arXiv 2205.01917), with the tokenizer in the
open_clip package or one from a folder. No hub is contacted."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from shared.errors import UserError
from shared.options.ranges import CheckedOptions, Steps
from shared.registry import nearest
from shared.text import one_line
from stage1_align.towers.base import Encoded, masked_max
from stage1_align.towers.open_clip_loading import check_activation, check_switches, read_state
from stage1_align.towers.text_tower import TextTower
from stage1_align.towers.tokenizers import HuggingFaceTokenizer, OpenClipTokenizer, Tokenizer


@dataclass
class OpenClipTextOptions(CheckedOptions):
    RENAMED: ClassVar[dict[str, str]] = {"peak": "max_pool", "licence": "license"}

    model: str | None = None
    """Name of an open_clip model (`ViT-B-32`); None builds the tower from `text_cfg`."""
    pretrained: str | None = None
    """Checkpoint file of the model (.safetensors, .pt, .bin) in open_clip's layout; only its text tower is loaded.
    None: random weights. Download the file of a tag first: tags are not resolved."""
    tokenizer: str | None = None
    """Folder with the tokenizer's files, for a model that does not use open_clip's tokenizer (SigLIP): the model's
    published folder has them."""
    text_cfg: dict = field(default_factory=dict)
    """Fields of open_clip's text configuration; with `model`, changes to the model's configuration."""
    quick_gelu: bool | None = None
    """Whether to use the activation of OpenAI's own weights; None: as in the model's configuration."""
    context_length: Steps | None = None
    """Tokens per window: training reads the first window of a longer text, encoding reads all windows. None: the
    model's number of positions."""
    projection: Literal["linear", "own"] = "linear"
    """Projection of the pooled text to the shared space: linear is a new layer; own is the model's projection, which
    keeps the alignment with its image tower and needs the model's embed_dim."""
    max_pool: bool = False
    """Also pool the maximum over the tokens, in addition to the model's pooling."""
    license: str = ""
    """License of the pretrained weights, for the model card."""


class OpenClipText(TextTower):
    """Texts to token features (L, C) and one vector in the shared space, pooled as in the model: CLIP at the end token,
    SigLIP at the last of all positions, CoCa at a class token after them. Features are taken after the last norm; for
    CoCa before it, as open_clip passes them to its decoder.

    After construction, `self.options` also contains the model's settings.
    """

    Options = OpenClipTextOptions
    ELSEWHERE = ("pretrained", "model", "tokenizer")
    net: Any
    TOKEN_POOLS: ClassVar[tuple[str, ...]] = ("argmax", "eos", "first")
    """Pool types that select a token of the text; the others read the padding after it."""

    def __init__(self, options: OpenClipTextOptions, embed_dim: int):
        from open_clip.model import CLIPTextCfg, _build_text_tower

        cfg, own_dim, quick_gelu = _configuration(options, embed_dim)
        positions = cfg["context_length"]
        length = options.context_length or positions
        if length > positions:
            raise UserError(f"context_length {length} is more than the model's {positions} positions")
        if options.projection not in ("linear", "own"):
            raise UserError(f"no projection {options.projection!r}: {nearest(options.projection, ('linear', 'own'))}")
        keeps_projection = options.projection == "own"
        if keeps_projection and (own_dim != embed_dim or options.max_pool or cfg["proj_type"] == "none"):
            raise UserError(
                f"projection: own: it is {cfg['proj_type']} and gives {own_dim}; set towers.embed_dim to that and "
                "max_pool to false, or projection to linear"
            )
        resolved = dataclasses.replace(
            options, model=None, tokenizer=None, text_cfg=cfg, quick_gelu=quick_gelu, context_length=length
        )
        super().__init__(resolved, embed_dim)
        self.net = _build_text_tower(own_dim, CLIPTextCfg(**cfg), quick_gelu)
        self.net.output_tokens = True
        if not keeps_projection:
            self.net.text_projection = None
        if options.pretrained:
            if options.model and options.quick_gelu is None:
                check_activation(options.model, options.pretrained, "quick_gelu")
            _load(self.net, Path(options.pretrained))
        if keeps_projection:
            self.project, self.HEADS = _to_linear(self.net.text_projection), ("query",)
            self.net.text_projection = None
        else:
            self.project = self._projection()
        self.tokenizer = _tokenizer(options, cfg)

    def prepare_text(self, text: str) -> str:
        """The text after the model's cleaning: SigLIP's drops punctuation."""
        cfg = self.options.text_cfg
        if not cfg["hf_tokenizer_name"]:
            return text  # open_clip's tokenizer does it
        from open_clip.tokenizer import get_clean_fn

        return get_clean_fn((cfg["tokenizer_kwargs"] or {}).get("clean", "whitespace"))(text)

    @property
    def width(self) -> int:
        return self.net.width

    @property
    def embedding_rows(self) -> int:
        return self.net.token_embedding.num_embeddings

    def blocks(self) -> list[nn.Module]:
        """The residual attention blocks, from input to output."""
        return list(self.net.transformer.resblocks)

    def forward(self, ids: Tensor, mask: Tensor) -> Encoded:
        """ids int64 (B, L), mask bool (B, L)."""
        pooled, sequence = self._features(ids)  # (B, C), (B, L, C)
        if self.options.max_pool:
            pooled = torch.cat([pooled.float(), masked_max(sequence.float(), mask)], 1)  # (B, 2 C)
        with torch.autocast(mask.device.type, enabled=False):
            pooled = nn.functional.normalize(self.project(pooled.float()), dim=-1)  # (B, D)
        return Encoded(pooled * mask.any(1, keepdim=True), sequence.float() * mask[..., None], mask, None)

    def _features(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Pooled (B, C) and sequence (B, L, C) of open_clip's tower for ids (B, L).

        open_clip computes all positions. Under causal attention no token attends to later ones, so the positions after
        the longest text are skipped here: the same numbers for a quarter of the work, with captions of 20 tokens in 77
        positions."""
        net, length = self.net, ids.shape[1]
        if net.attn_mask is None or net.cls_emb is not None or net.pool_type not in self.TOKEN_POOLS:
            pad_id = self.loaded_tokenizer().pad_id
            ids = nn.functional.pad(ids, (0, net.context_length - length), value=pad_id)  # (B, P)
            pooled, sequence = net(ids)  # (B, C), (B, P, C)
            return pooled, sequence[:, :length]
        from open_clip.transformer import text_global_pool

        x = net.token_embedding(ids) + net.positional_embedding[:length]  # (B, L, C)
        x = net.ln_final(net.transformer(x, attn_mask=net.attn_mask[:length, :length]))  # (B, L, C)
        return text_global_pool(x, ids, net.pool_type, eos_token_id=net.eos_id), x


def _configuration(options: OpenClipTextOptions, embed_dim: int) -> tuple[dict[str, Any], int, bool]:
    """open_clip's full text configuration, the width of its projection's output, and whether it uses QuickGELU."""
    import open_clip
    from open_clip.model import CLIPTextCfg

    model_cfg: dict[str, Any] = {}
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
    check_switches(CLIPTextCfg, values, "text_cfg")
    cfg = dataclasses.asdict(CLIPTextCfg(**values))
    source = options.model or "text_cfg"
    if cfg["hf_model_name"]:
        raise UserError(
            f"{source}: its text tower is {cfg['hf_model_name']} of transformers; download that and "
            "use the tower `transformer` with pretrained: FOLDER"
        )
    unsupported = sorted({*(cfg["tokenizer_kwargs"] or {})} - {"clean"})
    if unsupported or cfg["tokenizer_mode"]:
        needs = unsupported[0] if unsupported else "a mode of its own"
        raise UserError(f"{source}: its tokenizer needs {needs}, which is not supported; take another model")
    quick_gelu = options.quick_gelu if options.quick_gelu is not None else bool(model_cfg.get("quick_gelu"))
    return cfg, model_cfg.get("embed_dim", embed_dim), quick_gelu


def _tokenizer(options: OpenClipTextOptions, cfg: dict[str, Any]) -> Tokenizer | None:
    """open_clip's tokenizer, or the one in the folder for a model that uses another; None if it is loaded later,
    from an export."""
    name = cfg["hf_tokenizer_name"]
    if options.tokenizer and not name:
        raise UserError(f"tokenizer {options.tokenizer}: this model uses open_clip's tokenizer; leave the option out")
    if options.tokenizer:
        return HuggingFaceTokenizer.load(Path(options.tokenizer)).check(cfg["vocab_size"])
    if name and (options.model or options.pretrained):
        raise UserError(
            f"{options.model or 'text_cfg'}: its tokenizer is {name}, not open_clip's; download it "
            f"(`hf download {name} --exclude '*.safetensors' '*.bin' --local-dir DIR`) and give tokenizer: DIR"
        )
    return None if name else OpenClipTokenizer().check(cfg["vocab_size"])


def _load(net: nn.Module, path: Path) -> None:
    """Load the text weights of an open_clip checkpoint: under `text.`, or, in CLIP's older layout, next to `visual.`.
    UserError if they do not fit."""
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint file; download the model's open_clip_model.safetensors first")
    state = read_state(path)
    text = {name.removeprefix("text."): value for name, value in state.items() if name.startswith("text.")}
    if not text:
        names = set(net.state_dict())
        text = {name: value for name, value in state.items() if name in names}
    if not text:
        raise UserError(
            f"{path}: holds no text tower (token_embedding.weight is missing); give an open_clip checkpoint"
        )
    text.pop("attn_mask", None)  # a constant in old files
    if net.text_projection is None:
        text = {name: value for name, value in text.items() if not name.startswith("text_projection")}
    try:
        net.load_state_dict(text)
    except RuntimeError as error:
        reason = one_line(error, 200)
        raise UserError(f"{path}: belongs to another model ({reason})") from None


def _to_linear(projection: nn.Linear | nn.Parameter) -> nn.Linear:
    """open_clip's text projection, a layer or a parameter (C, D), as a layer."""
    if isinstance(projection, nn.Linear):
        return projection
    width, dim = projection.shape
    layer = nn.Linear(width, dim, bias=False)
    layer.weight = nn.Parameter(projection.detach().T.contiguous())  # (D, C)
    return layer
