"""Text: an encoder of transformers, with a sentencepiece tokenizer trained on the corpus or the published tokenizer."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from shared.errors import UserError
from shared.options.ranges import CheckedOptions, Steps, VocabularySize
from shared.registry import nearest
from shared.saved.typed import read_typed
from shared.text import one_line
from stage1_align.towers.base import Encoded
from stage1_align.towers.gte_config import gte_fields
from stage1_align.towers.loaded_weights import check_loaded
from stage1_align.towers.small_bert import BertSizes, SmallBert
from stage1_align.towers.text_tower import TextTower
from stage1_align.towers.tokenizers import HuggingFaceTokenizer, SentencePieceTokenizer, Tokenizer
from stage1_align.towers.transformers_config import build_config, check_fields, check_published, known_fields

ARCHITECTURES = (
    "albert",
    "bert",
    "big_bird",
    "camembert",
    "convbert",
    "data2vec-text",
    "deberta",
    "deberta-v2",
    "distilbert",
    "electra",
    "ernie",
    "eurobert",
    "gte",
    "jina_embeddings_v3",
    "megatron-bert",
    "mobilebert",
    "modernbert",
    "mpnet",
    "nomic_bert",
    "rembert",
    "roberta",
    "roberta-prelayernorm",
    "roformer",
    "squeezebert",
    "xlm-roberta",
    "xlm-roberta-xl",
)
"""Text encoders of transformers. Other model types may load parts from a hub (timm_wrapper) or combine several
models."""


@dataclass
class TextOptions(CheckedOptions):
    RENAMED: ClassVar[dict[str, str]] = {"peak": "max_pool", "licence": "license"}

    pretrained: str | None = None
    """Folder of a published encoder (RoBERTa, XLM-R, BERT, GTE, ...): config.json, model.safetensors and its tokenizer
    files. None: random weights. Download a hub model first: names are not resolved."""
    architecture: str = "bert"
    """Model type in transformers, configured by `model_cfg`; with `pretrained`, the folder's model type."""
    model_cfg: dict = field(default_factory=dict)
    """Fields of its configuration: hidden_size, num_hidden_layers, ...; with `pretrained`, changes to the folder's
    configuration, such as {hidden_dropout_prob: 0.0}."""
    vocab_size: VocabularySize = 512
    """Pieces of the sentencepiece model trained on the corpus; reduced if the corpus has fewer. With `pretrained`, the
    folder's vocabulary size."""
    context_length: Steps = 48
    """Tokens per window: training reads the first window of a longer text, encoding reads all windows."""
    max_pool: bool = False
    """Also pool the maximum over the tokens."""
    license: str = ""
    """License of the pretrained weights, for the model card; "" uses the one in the folder's README."""


class TransformerText(TextTower):
    """Texts to token features (L, C) and their mean over the real tokens in the shared space (mean pooling, Reimers and
    Gurevych 2019, arXiv 1908.10084, section 3)."""

    Options = TextOptions
    net: Any

    def __init__(self, options: TextOptions, embed_dim: int):
        if options.pretrained:
            net, tokenizer, options = _load_published(options)
        else:
            net, tokenizer = _from_scratch(options), None
        super().__init__(options, embed_dim)
        self.net, self.tokenizer = net, tokenizer
        self.project = self._projection()

    @classmethod
    def corpus_tokenizer(cls, options: dict[str, Any], texts: list[str]) -> Tokenizer | None:
        if options.get("pretrained"):
            return None
        return SentencePieceTokenizer.train(texts, options.get("vocab_size", TextOptions.vocab_size))

    @property
    def width(self) -> int:
        return self.net.config.hidden_size

    @property
    def embedding_rows(self) -> int:
        return self.net.get_input_embeddings().num_embeddings

    def blocks(self) -> list[nn.Module]:
        """The encoder's layers, from input to output."""
        return next((list(part) for part in self.net.modules() if isinstance(part, nn.ModuleList)), [])

    def forward(self, ids: Tensor, mask: Tensor) -> Encoded:
        """ids int64 (B, L), mask bool (B, L)."""
        # A row without tokens would divide by zero in the attention: attend to its first position, which _finish masks
        # again.
        attention = mask | (torch.arange(mask.shape[1], device=mask.device) == 0)  # (B, L)
        if ids.device.type == "cpu" and not torch.compiler.is_compiling():
            sequence = self._forward_by_length(ids, attention)  # (B, L, C)
        else:
            sequence = self.net(input_ids=ids, attention_mask=attention.long()).last_hidden_state  # (B, L, C)
        return self._finish(sequence, mask, None)

    def _forward_by_length(self, ids: Tensor, attention: Tensor) -> Tensor:
        """The hidden states (B, L, C), computed in up to three groups of rows of similar length, each padded to its
        longest row: two thirds of a batch of short texts are padding, which costs a CPU as much as real tokens. The
        number of groups depends only on the number of rows, so that the processes of a sharded model run the same
        steps."""
        ends = (attention * torch.arange(1, 1 + attention.shape[1])).amax(1)  # (B,)
        order = ends.argsort(stable=True)  # (B,)
        parts = []
        for rows in order.chunk(max(1, min(3, len(order) // 8))):
            end = int(ends[rows[-1]])
            part = self.net(input_ids=ids[rows, :end], attention_mask=attention[rows, :end].long()).last_hidden_state
            parts.append(nn.functional.pad(part, (0, 0, 0, attention.shape[1] - end)))  # (b, L, C)
        return torch.cat(parts)[order.argsort()]  # (B, L, C)


def _from_scratch(options: TextOptions) -> Any:
    """The encoder with random weights."""
    where = f"{options.architecture} tower: model_cfg"
    values = {
        "vocab_size": options.vocab_size,
        "max_position_embeddings": options.context_length,
        "type_vocab_size": 1,
        "pad_token_id": 0,
        **options.model_cfg,
    }
    if options.architecture == "bert" and values.keys() <= BertSizes.__dataclass_fields__.keys():
        sizes = read_typed(BertSizes, values, where)
        _check_positions(options, sizes.max_position_embeddings)
        return SmallBert(sizes)
    from transformers import AutoModel

    config_class = _config_class(options.architecture)
    check_fields(config_class, options.model_cfg, where)
    config = build_config(config_class, values, where)
    _check_positions(options, getattr(config, "max_position_embeddings", options.context_length))
    return _without_pooler(lambda **kwargs: AutoModel.from_config(config, **kwargs))


def _check_positions(options: TextOptions, positions: int) -> None:
    if options.context_length > positions:
        raise UserError(f"context_length {options.context_length} is more than the {positions} positions of model_cfg")


def _config_class(architecture: str) -> Any:
    """The configuration class of one of ARCHITECTURES; UserError names the nearest."""
    from transformers import CONFIG_MAPPING, __version__

    if architecture not in ARCHITECTURES:
        raise UserError(f"no architecture {architecture!r} for texts here: {nearest(architecture, ARCHITECTURES)}")
    if architecture not in CONFIG_MAPPING:
        raise UserError(f"transformers {__version__} has no architecture {architecture!r}; install a newer version")
    return CONFIG_MAPPING[architecture]


def _load_published(options: TextOptions) -> tuple[nn.Module, Tokenizer, TextOptions]:
    """The net and tokenizer of a published folder, and the options with its full configuration."""
    folder = Path(options.pretrained or "")
    if not (folder / "config.json").is_file():
        raise UserError(
            f"{folder}: no pretrained text encoder here (config.json is missing); download one, for example with "
            "`hf download FacebookAI/roberta-base --local-dir DIR`"
        )
    if not (folder / "model.safetensors").is_file() and not (folder / "model.safetensors.index.json").is_file():
        raise UserError(f"{folder}: no model.safetensors here; download the folder again, or convert its weights")
    net, config = _load_net(folder, options.model_cfg)
    positions = _positions(net)
    if options.context_length > positions:
        raise UserError(f"context_length {options.context_length} is more than the {positions} positions of {folder}")
    rows = net.get_input_embeddings().num_embeddings
    with _quiet():
        tokenizer = HuggingFaceTokenizer.load(folder).check(rows)
    resolved = dataclasses.replace(
        options,
        architecture=config.model_type,
        model_cfg=known_fields(config),
        vocab_size=rows,
        license=options.license or license_of(folder),
    )
    return net, tokenizer, resolved


def _load_net(folder: Path, model_cfg: dict[str, Any]) -> tuple[Any, Any]:
    """The encoder in a published folder and its configuration. UserError if its weights are incomplete."""
    from transformers import AutoConfig, AutoModel

    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    check_published(folder)
    try:
        if gte := gte_fields(folder):
            config = AutoConfig.for_model("gte", **{**gte, **model_cfg})
        else:
            config = AutoConfig.from_pretrained(folder, **local, **model_cfg)
            check_fields(_config_class(config.model_type), model_cfg, f"{config.model_type} tower: model_cfg")
        local |= {"config": config, "use_safetensors": True, "dtype": torch.float32, "output_loading_info": True}
        local["ignore_mismatched_sizes"] = True  # otherwise the error does not say which ones
        with _quiet():
            net, report = _without_pooler(lambda **kwargs: AutoModel.from_pretrained(folder, **local, **kwargs))
    except UserError:
        raise
    except Exception as error:  # safetensors, JSON, shapes and remote code raise different errors
        reason = one_line(error, 200)
        raise UserError(f"{folder}: cannot be loaded as a transformers encoder ({reason})") from None
    check_loaded(folder, net, report, model_cfg)
    return net, config


def _positions(net: Any) -> int:
    """Most tokens of a text. RoBERTa and its descendants count positions from after the padding id."""
    table = getattr(getattr(net, "embeddings", None), "position_embeddings", None)
    padding_id = getattr(table, "padding_idx", None)
    offset = 0 if padding_id is None else padding_id + 1
    return net.config.max_position_embeddings - offset


def _without_pooler(build: Callable[..., Any]) -> Any:
    """The result of `build`, without the pooler of architectures that have one: mean pooling does not use it."""
    try:
        return build(add_pooling_layer=False)
    except TypeError:
        return build()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence progress bars and the list of heads dropped on purpose; missing weights are checked here."""
    from transformers.utils import logging

    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()


def license_of(folder: Path) -> str:
    """The license in the front matter of a published folder's README ("license: mit"); "" if it has none."""
    readme = folder / "README.md"
    lines = readme.read_text(errors="replace").splitlines() if readme.is_file() else []
    if lines[:1] != ["---"]:
        return ""
    front = lines[1 : lines.index("---", 1)] if "---" in lines[1:] else []
    named = [line.removeprefix("license:").strip() for line in front if line.startswith("license:")]
    return named[0] if named else ""
