"""Texts to token ids: each kind of tokenizer is saved with its tower and loaded again without a hub."""

import io
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

import torch
from torch import Tensor

from shared.errors import UserError
from shared.registry import Registry
from shared.text import one_line

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MINIMUM_VOCABULARY = 16  # transformers may return a tokenizer of five entries where it failed to load one
AGAIN = "export the encoders again"


class Tokenizer:
    """Base of the tokenizers; `len` is the number of entries."""

    kind: ClassVar[str]
    pad_id: int = 0

    def __len__(self) -> int:
        raise NotImplementedError

    def __call__(self, text: str) -> list[int]:
        """All ids of a text, with the start and end tokens of this kind."""
        raise NotImplementedError

    def save(self, folder: Path) -> None:
        """Write the files that `load` needs to a folder, which is created."""
        raise NotImplementedError

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the files of `save`; UserError when they are missing or damaged. Never asks a hub."""
        raise NotImplementedError

    def cut(self, ids: list[int], length: int) -> list[int]:
        """The first `length` ids."""
        return ids[:length]

    def knows_any(self, ids: list[int]) -> bool:
        """Whether any of the ids stands for text; unknown pieces and start and end tokens do not."""
        raise NotImplementedError

    def known(self, text: str) -> list[int]:
        """All ids of a text; [] for an absent one, which is blank or has no character that this tokenizer knows."""
        ids = self(text) if text.strip() else []
        return ids if ids and self.knows_any(ids) else []

    def encode(self, texts: list[str], length: int) -> tuple[Tensor, Tensor]:
        """ids int64 (B, L), padded on the right, and mask bool (B, L); L is the number of ids of the longest text, at
        least 1 and at most `length`. An absent text (see `known`) has a mask of all False."""
        rows = [self.cut(pieces, length) if (pieces := self.known(text)) else [] for text in texts]
        longest = max(1, *(len(row) for row in rows))
        ids = torch.full((len(rows), longest), self.pad_id, dtype=torch.long)  # (B, L)
        mask = torch.zeros(len(rows), longest, dtype=torch.bool)  # (B, L)
        for row, values in enumerate(rows):
            ids[row, : len(values)] = torch.tensor(values, dtype=torch.long)
            mask[row, : len(values)] = True
        return ids, mask

    def check(self, rows: int) -> Self:
        """This tokenizer. UserError unless it fits a published model with `rows` embeddings (which may be padded to a
        round number) and gives different texts different ids: offline, transformers may return a tokenizer of five
        entries that maps every text to the same ids."""
        if len(self) < max(MINIMUM_VOCABULARY, 0.9 * rows):
            raise UserError(
                f"the tokenizer has only {len(self)} pieces, the model {rows}: its files are incomplete; put them "
                "(tokenizer.json, or vocab and merges, or a sentencepiece model) beside the weights"
            )
        if len(self) > rows:
            raise UserError(
                f"the tokenizer has {len(self)} pieces and the model {rows}: they do not belong together; "
                "take both from one published folder"
            )
        if self("we laughed together") == self("a sad old song"):
            raise UserError("the tokenizer gives different texts the same ids: its files are incomplete; replace them")
        return self


class SentencePieceTokenizer(Tokenizer):
    """Trained on the corpus; id 0 pads, id 1 is unknown. It has no start or end tokens."""

    kind = "sentencepiece"
    FILE = "sentencepiece.model"

    def __init__(self, model: bytes):
        import sentencepiece

        self.model = model
        self.processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        if len(self) < MINIMUM_VOCABULARY:
            raise UserError(f"the tokenizer has only {len(self)} pieces: its files are incomplete; {AGAIN}")

    @classmethod
    def train(cls, texts: list[str], vocab_size: int) -> Self:
        """Train a unigram model (Kudo 2018, arXiv 1804.10959) on texts, with fewer pieces when the texts are few."""
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
    def load(cls, folder: Path) -> Self:
        path = Path(folder) / cls.FILE
        if not path.is_file():
            raise UserError(f"{path}: no tokenizer here; {AGAIN}")
        try:
            return cls(path.read_bytes())
        except RuntimeError:
            raise UserError(f"{path}: damaged; {AGAIN}") from None

    def save(self, folder: Path) -> None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / self.FILE).write_bytes(self.model)

    def __len__(self) -> int:
        return self.processor.vocab_size()

    def __call__(self, text: str) -> list[int]:
        return self.processor.encode(text)

    def knows_any(self, ids: list[int]) -> bool:
        return bool(self.processor.decode([i for i in ids if i != self.processor.unk_id()]).strip())


class HuggingFaceTokenizer(Tokenizer):
    """Any published tokenizer of transformers, from a local folder, with the start and end tokens of its model."""

    kind = "huggingface"

    def __init__(self, tokenizer: "PreTrainedTokenizerBase"):
        self.tokenizer = tokenizer
        self.pad_id = tokenizer.pad_token_id or 0

    @classmethod
    def load(cls, folder: Path) -> Self:
        from transformers import AutoTokenizer

        if not Path(folder).is_dir():
            raise UserError(f"{folder}: no tokenizer here; give the folder that holds its files")
        try:
            # By default, transformers asks at the terminal whether to run code from the folder.
            return cls(AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False))
        except Exception as error:  # each file format raises its own; Rust raises plain Exceptions
            reason = one_line(error, 200)
            raise UserError(f"{folder}: the tokenizer cannot be loaded ({reason}); download its files again") from None

    def save(self, folder: Path) -> None:
        self.tokenizer.save_pretrained(str(folder))

    def __len__(self) -> int:
        return len(self.tokenizer)

    def __call__(self, text: str) -> list[int]:
        return self.tokenizer(text, verbose=False)["input_ids"]

    def knows_any(self, ids: list[int]) -> bool:
        return bool(str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip())

    def cut(self, ids: list[int], length: int) -> list[int]:
        """The first ids, and the end token if the tokenizer has one. The tokenizer's own truncation gives the same, but
        saves the length with the tokenizer."""
        if len(ids) <= length or ids[-1] not in self.tokenizer.all_special_ids:
            return ids[:length]
        return [*ids[: length - 1], ids[-1]]


class OpenClipTokenizer(Tokenizer):
    """open_clip's byte-pair encoding (Radford et al. 2021, arXiv 2103.00020); its merges are saved with the tower."""

    kind = "open_clip"
    FILE = "bpe.txt.gz"

    def __init__(self, path: Path | None = None):
        from open_clip.tokenizer import SimpleTokenizer, default_bpe

        self.path = Path(path or default_bpe())
        self.tokenizer = SimpleTokenizer(bpe_path=str(self.path))

    @classmethod
    def load(cls, folder: Path) -> Self:
        path = Path(folder) / cls.FILE
        if not path.is_file():
            raise UserError(f"{path}: no tokenizer here; {AGAIN}")
        try:
            return cls(path)
        except (OSError, EOFError, ValueError):
            raise UserError(f"{path}: damaged; {AGAIN}") from None

    def save(self, folder: Path) -> None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.path, Path(folder) / self.FILE)

    def __len__(self) -> int:
        return self.tokenizer.vocab_size

    def __call__(self, text: str) -> list[int]:
        return [self.tokenizer.sot_token_id, *self.tokenizer.encode(text), self.tokenizer.eot_token_id]

    def knows_any(self, ids: list[int]) -> bool:
        return len(ids) > 2  # bytes are pieces: nothing is unknown

    def cut(self, ids: list[int], length: int) -> list[int]:
        """The first ids and the end token, at which these models pool."""
        return ids if len(ids) <= length else [*ids[: length - 1], ids[-1]]


TOKENIZERS = Registry(
    "tokenizer",
    {
        cls.kind: f"{__name__}:{cls.__name__}"
        for cls in (SentencePieceTokenizer, HuggingFaceTokenizer, OpenClipTokenizer)
    },
)
