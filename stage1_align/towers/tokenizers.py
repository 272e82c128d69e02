"""Texts to token ids: each kind of tokenizer is saved with its tower and loaded again without a hub."""

import io
import itertools
import math
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Self

import torch
from torch import Tensor

from shared.errors import UserError
from shared.registry import Registry
from shared.text import UNREADABLE, one_line, repair_surrogates, says_something

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MINIMUM_VOCABULARY = 16  # transformers may return a tokenizer of five entries if loading failed
AGAIN = "export the encoders again"


class ReadText(NamedTuple):
    """A text as a tokenizer reads it. Only letters and digits count, or symbols if the text has neither."""

    ids: list[int]
    """All ids, with the start and end tokens of the tokenizer."""
    known: int
    """Number of characters that an id represents."""
    unknown: int
    """Number of characters without an id, or with the id shared by all unknown text."""

    @property
    def is_absent(self) -> bool:
        """Whether the text says nothing or is mostly unknown: all such texts would get the same vector."""
        return self.unknown >= self.known


class Tokenizer:
    """Base of the tokenizers; `len` is the number of entries."""

    kind: ClassVar[str]
    pad_id: int = 0

    def __len__(self) -> int:
        raise NotImplementedError

    def __call__(self, text: str) -> list[int]:
        """All ids of a text, with the start and end tokens."""
        raise NotImplementedError

    def save(self, folder: Path) -> None:
        """Write the files that `load` needs to a folder, and create it."""
        raise NotImplementedError

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the files of `save`; UserError if they are missing or damaged. Never contacts a hub."""
        raise NotImplementedError

    def cut(self, ids: list[int], length: int) -> list[int]:
        """The first `length` ids."""
        return ids[:length]

    def marks(self, ids: list[int]) -> tuple[list[int], list[int]]:
        """The start and the end tokens of the ids of a text."""
        return [], []

    def windows(self, ids: list[int], length: int) -> list[list[int]]:
        """All ids in windows of at most `length` and nearly equal length, each with the start and end tokens."""
        start, end = self.marks(ids)
        room, inner = length - len(start) - len(end), ids[len(start) : len(ids) - len(end)]
        if len(ids) <= length or room < 1:
            return [self.cut(ids, length)]
        count = math.ceil(len(inner) / room)
        edges = [i * len(inner) // count for i in range(count + 1)]
        return [[*start, *inner[a:b], *end] for a, b in itertools.pairwise(edges)]

    def read(self, text: str) -> ReadText:
        """The ids of a text, and how much of it they represent."""
        text = repair_surrogates(text)
        says = says_something(text)
        total = sum(map(says, text)) + text.count(UNREADABLE)
        if not total:
            return ReadText([], 0, 0)
        ids, pieces = self._known_pieces(text)
        known = min(total, sum(sum(map(says, piece)) for piece in pieces))
        return ReadText(ids, known, total - known)

    def _known_pieces(self, text: str) -> tuple[list[int], list[str]]:
        """All ids of a text, and the parts of the text represented by known ids."""
        raise NotImplementedError

    def known(self, text: str) -> list[int]:
        """All ids of a text; [] for an absent one, which has no letters, digits or symbols, or mostly unknown ones."""
        read = self.read(text)
        return [] if read.is_absent else read.ids

    def encode(self, texts: list[str], length: int) -> tuple[Tensor, Tensor]:
        """ids int64 (B, L), padded on the right, and mask bool (B, L); L is the length of the longest text in ids, at
        least 1 and at most `length`. An absent text (see `known`) has a mask of all False."""
        return self.pad([self.cut(ids, length) if (ids := self.known(text)) else [] for text in texts])

    def pad(self, rows: list[list[int]]) -> tuple[Tensor, Tensor]:
        """Ids of B texts as one tensor int64 (B, L), padded on the right, and mask bool (B, L); L >= 1."""
        longest = max(1, *(len(row) for row in rows))
        ids = torch.full((len(rows), longest), self.pad_id, dtype=torch.long)  # (B, L)
        mask = torch.zeros(len(rows), longest, dtype=torch.bool)  # (B, L)
        for row, values in enumerate(rows):
            ids[row, : len(values)] = torch.tensor(values, dtype=torch.long)
            mask[row, : len(values)] = True
        return ids, mask

    def check(self, rows: int) -> Self:
        """This tokenizer. UserError unless it fits a published model with `rows` embeddings (possibly padded to a round
        number) and gives different texts different ids: offline, transformers may return a tokenizer of five entries
        that maps every text to the same ids."""
        if len(self) < max(MINIMUM_VOCABULARY, 0.9 * rows):
            raise UserError(
                f"the tokenizer has only {len(self)} pieces, the model {rows}: its files are incomplete; put them "
                "(tokenizer.json, or vocab and merges, or a sentencepiece model) next to the weights"
            )
        if len(self) > rows:
            raise UserError(
                f"the tokenizer has {len(self)} pieces and the model {rows}: they do not belong together; "
                "take both from the same published folder"
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
        """Train a unigram model (Kudo 2018, arXiv 1804.10959) on texts, with fewer pieces if there are few texts."""
        import sentencepiece

        texts = sorted({repair_surrogates(text.strip()) for text in texts if text.strip()})
        if not texts:
            raise UserError("no clip has words: a tokenizer cannot be trained on this dataset")
        model = io.BytesIO()
        try:
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
        except RuntimeError as error:
            if needed := re.search(r"required_chars\. \d+ vs (\d+)", str(error)):
                raise UserError(
                    f"the words have {needed[1]} different characters, more than vocab_size {vocab_size}; "
                    f"set towers.text.options.vocab_size to {2 * int(needed[1])} or so, or take a pretrained encoder"
                ) from None
            reason = one_line(error, 200)
            raise UserError(
                f"a tokenizer cannot be trained on these words ({reason}); look at the clips' words"
            ) from None
        pieces = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue()).get_piece_size()
        if pieces < MINIMUM_VOCABULARY:
            raise UserError(
                f"{len(texts)} different texts give a tokenizer of only {pieces} pieces (the least is "
                f"{MINIMUM_VOCABULARY}); give more clips with words, a larger towers.text.options.vocab_size, or a "
                "pretrained encoder"
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

    def _known_pieces(self, text: str) -> tuple[list[int], list[str]]:
        ids, unknown = self(text), self.processor.unk_id()
        if unknown not in ids:
            return ids, [text]
        pieces = self.processor.encode(text, return_type="proto").pieces
        return ids, [piece.surface for piece in pieces if piece.id != unknown]


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
            raise UserError(f"{folder}: no tokenizer here; give the folder with its files")
        try:
            # By default, transformers asks in the terminal whether to run code from the folder.
            return cls(AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False))
        except Exception as error:  # each file format raises its own errors; Rust raises plain Exceptions
            reason = one_line(error, 200)
            raise UserError(f"{folder}: the tokenizer cannot be loaded ({reason}); download its files again") from None

    def save(self, folder: Path) -> None:
        self.tokenizer.save_pretrained(str(folder))

    def __len__(self) -> int:
        return len(self.tokenizer)

    def __call__(self, text: str) -> list[int]:
        return self.tokenizer(self._as_words(text), verbose=False)["input_ids"]

    def _as_words(self, text: str) -> str:
        """The text with a space inside anything that looks like a special token, such as "<unk>" or "</s>"."""
        for token in self.tokenizer.all_special_tokens:
            text = text.replace(token, f"{token[0]} {token[1:]}") if len(token) > 1 else text
        return text

    def marks(self, ids: list[int]) -> tuple[list[int], list[int]]:
        around = self("")
        for count in range(len(around), -1, -1):
            start, end = around[:count], around[count:]
            if ids[:count] == start and ids[len(ids) - len(end) :] == end:
                return start, end
        return [], []

    def _known_pieces(self, text: str) -> tuple[list[int], list[str]]:
        if not self.tokenizer.is_fast:  # it does not say which part of the text a token represents
            ids, (start, end) = self(text), self.marks(self(text))
            inner = ids[len(start) : len(ids) - len(end)]
            known = sum(i != self.tokenizer.unk_token_id for i in inner) / max(1, len(inner))
            return ids, [text[: round(len(text) * known)]]
        text = self._as_words(text)
        read = self.tokenizer(text, verbose=False, return_offsets_mapping=True)
        covered = bytearray(len(text))
        tokens = zip(read["input_ids"], read["offset_mapping"], strict=True)
        # Unknown ones last: a space marker may claim the first letter of the following word.
        for unknown, (first, last) in sorted((i == self.tokenizer.unk_token_id, place) for i, place in tokens):
            covered[first:last] = bytes([not unknown]) * (last - first)
        return read["input_ids"], ["".join(itertools.compress(text, covered))]

    def cut(self, ids: list[int], length: int) -> list[int]:
        """The first ids, and the end token if the tokenizer has one. The tokenizer's truncation gives the same result,
        but saves the length with the tokenizer."""
        if len(ids) <= length or ids[-1] not in self.tokenizer.all_special_ids:
            return ids[:length]
        return [*ids[: length - 1], ids[-1]]


class OpenClipTokenizer(Tokenizer):
    """open_clip's byte-pair encoding (Radford et al. 2021, arXiv 2103.00020); its merges are saved with the tower."""

    kind = "open_clip"
    FILE = "bpe.txt.gz"

    def __init__(self, path: Path | None = None):
        import regex
        from open_clip.tokenizer import SimpleTokenizer, default_bpe

        self.path = Path(path or default_bpe())
        self.tokenizer = SimpleTokenizer(bpe_path=str(self.path))
        # A text with the words "<end_of_text>" would end there: let the pattern split them like other words.
        marks = "|".join(self.tokenizer.decoder[i] for i in self.tokenizer.all_special_ids)
        self.tokenizer.pat = regex.compile(self.tokenizer.pat.pattern.removeprefix(f"{marks}|"), regex.IGNORECASE)

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

    def marks(self, ids: list[int]) -> tuple[list[int], list[int]]:
        return ids[:1], ids[-1:]

    def _known_pieces(self, text: str) -> tuple[list[int], list[str]]:
        return self(text), [text]  # bytes are pieces: nothing is unknown

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
