"""Text: a transformers encoder over sentencepiece tokens."""

import dataclasses
import io
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from shared.errors import UserError
from stage1_align.towers.base import Encoded, Tower, pad

MINIMUM_VOCABULARY = 16  # a tokenizer that could not be loaded may come back with five entries and map any text to them


@dataclass
class TextOptions:
    architecture: str = "bert"
    """Model type of transformers whose configuration `model_cfg` fills."""
    model_cfg: dict = field(default_factory=dict)
    """Fields of that configuration: hidden_size, num_hidden_layers, ..."""
    vocab_size: int = 512
    """Pieces of the sentencepiece model trained from the corpus; lowered when the corpus holds fewer."""
    context_length: int = 48
    """Tokens a text is cut to."""
    peak: bool = False
    """Pool the maximum over time beside the mean: an expression is over in a moment."""


class TransformerText(Tower):
    """Texts to token features (L, C) and their mean in the shared space. An empty text is an absent one."""

    Options = TextOptions

    def __init__(self, options: TextOptions, embed_dim: int):
        from transformers import AutoConfig, AutoModel

        super().__init__(options, embed_dim)
        values = {
            "vocab_size": options.vocab_size,
            "max_position_embeddings": options.context_length,
            "type_vocab_size": 1,
            "pad_token_id": 0,
            **options.model_cfg,
        }
        config = AutoConfig.for_model(options.architecture, **values)
        self.net = AutoModel.from_config(config, add_pooling_layer=False)
        self.project = self._projection()
        self.tokenizer: SentencePieceTokenizer | None = None

    @property
    def width(self) -> int:
        return self.net.config.hidden_size

    def config(self) -> dict:
        return dataclasses.asdict(self.options)

    def collate(self, items: list[str]) -> dict[str, Tensor]:
        """Texts to ids int64 (B, L) and mask (B, L)."""
        if self.tokenizer is None:
            raise UserError("this text tower has no tokenizer: train one, or load the tower with from_pretrained")
        length = self.options.context_length
        ids, mask = pad([torch.tensor(self.tokenizer(item)[:length], dtype=torch.long) for item in items])
        return {"ids": ids, "mask": mask}

    def forward(self, ids: Tensor, mask: Tensor) -> Encoded:
        """ids int64 (B, L), mask bool (B, L)."""
        seen = mask.clone()
        seen[:, 0] = True  # a row without any token would divide by zero in the attention; it is masked again below
        sequence = self.net(input_ids=ids, attention_mask=seen.long()).last_hidden_state  # (B, L, C)
        return self._finish(sequence, mask, None)


class SentencePieceTokenizer:
    """Text to piece ids; 0 pads. The model file travels with the tower as tokenizer/sentencepiece.model."""

    FILE = "sentencepiece.model"

    def __init__(self, model: bytes):
        import sentencepiece

        self.model = model
        self.processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        if self.processor.vocab_size() < MINIMUM_VOCABULARY:
            raise UserError(
                f"the tokenizer knows {self.processor.vocab_size()} pieces only: it was not loaded whole; export again"
            )

    @classmethod
    def train(cls, texts: list[str], vocab_size: int) -> "SentencePieceTokenizer":
        """Train a unigram model (Kudo 2018, arXiv 1804.10959) on texts; fewer pieces when the texts hold no more."""
        import sentencepiece

        texts = sorted({text.strip() for text in texts if text.strip()})
        if not texts:
            raise UserError("no clip has words: a tokenizer cannot be trained on this dataset")
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            vocab_size=vocab_size,
            hard_vocab_limit=False,
            pad_id=0,
            unk_id=1,
            bos_id=-1,
            eos_id=-1,
            normalization_rule_name="nmt_nfkc_cf",
            num_threads=1,
            minloglevel=2,
        )
        return cls(model.getvalue())

    @classmethod
    def load(cls, folder: Path) -> "SentencePieceTokenizer":
        path = Path(folder) / cls.FILE
        if not path.is_file():
            raise UserError(f"{path}: no tokenizer here; export the encoders again")
        return cls(path.read_bytes())

    def save(self, folder: Path) -> None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / self.FILE).write_bytes(self.model)

    def __len__(self) -> int:
        return self.processor.vocab_size()

    def __call__(self, text: str) -> list[int]:
        return self.processor.encode(text)
