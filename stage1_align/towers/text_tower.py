"""The base of the text towers, and what their `encode` accepts."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from shared.errors import UserError
from shared.media.arrays import check_text, reject
from stage1_align.towers.base import Encoded, Tower
from stage1_align.towers.inputs import to_list
from stage1_align.towers.tokenizers import Tokenizer

ENCODE = "text.encode"
EXAMPLES = 3
"""Most texts to name in a note."""
WINDOWS = 32
"""Windows of long texts per forward pass, unless it has more texts."""


@dataclass
class TextCoverage:
    """How a tower reads texts: counts and row numbers."""

    context_length: int
    given: int = 0
    """Texts that are not blank."""
    unknown: list[int] = field(default_factory=list)
    """Texts that count as absent: most of their characters are unknown to the tokenizer, or they say nothing."""
    partly: list[int] = field(default_factory=list)
    """Other texts with unknown characters."""
    longer: list[int] = field(default_factory=list)
    """Texts with more tokens than `context_length`."""
    tokens: int = 0
    beyond: int = 0
    """Number of tokens in all texts, and of tokens beyond `context_length`."""

    def notes(self, names: Sequence[str], longer: str) -> list[str]:
        """A line for each kind that occurs. names: of the texts; longer: what happens beyond the context."""
        of = f"of {self.given} texts"
        notes = []
        if self.unknown:
            notes.append(
                f"{len(self.unknown)} {of} count as missing, such as {self._examples(names, self.unknown)}: they say "
                "nothing, or the text encoder's tokenizer does not know half of their letters or more"
            )
        if self.partly:
            notes.append(
                f"{len(self.partly)} {of} have letters that the text encoder's tokenizer does not know, such as "
                f"{self._examples(names, self.partly)}"
            )
        if self.longer:
            notes.append(
                f"{len(self.longer)} {of} are longer than context_length {self.context_length}, such as "
                f"{self._examples(names, self.longer)} ({self.beyond} of {self.tokens} tokens are beyond): {longer}"
            )
        return notes

    def _examples(self, names: Sequence[str], rows: list[int]) -> str:
        return ", ".join(repr(names[row][:40]) for row in rows[:EXAMPLES])


class TextTower(Tower):
    """A tower for texts. Its tokenizer is saved with it; an empty text counts as absent."""

    tokenizer: Tokenizer | None = None

    @classmethod
    def corpus_tokenizer(cls, options: dict[str, Any], texts: list[str]) -> Tokenizer | None:
        """A tokenizer trained on texts, for options without a tokenizer; else None. Its length is the tower's
        vocab_size."""
        return None

    def encode(self, texts: str | Sequence[str | None] | None) -> Encoded:
        """Embed one text or a list of texts: a list is one batch, a single text a batch of one.

        A text is absent if it is None, blank or only punctuation, or if most of its characters are unknown to the
        tokenizer, which gives a warning: its mask is all False and its pooled vector zero. A text longer than
        `options.context_length` tokens is read in windows: the sequence has all of their tokens, and the pooled vector
        is their mean.

        Returns an Encoded: pooled float32 (B, D), of unit length; sequence float32 (B, T, C), one step per token;
        mask bool (B, T); rate and times None; truncated bool (B,), all False. No gradient. UserError for anything but
        texts.

        >>> encoders.text.encode("that is so funny").pooled.shape
        torch.Size([1, 64])
        >>> encoders.text.encode(["that is so funny", None]).mask.any(1).tolist()
        [True, False]
        """
        items = to_list(ENCODE, texts)
        for item in items:
            if item is not None and not isinstance(item, str):
                raise reject(ENCODE, item, "a text is a str, or None if absent; give several as a list")
            check_text(ENCODE, item or "")
        given = ["" if item is None else item for item in items]
        encoded = self.encode_prepared(given)
        encoded.truncated = torch.zeros(len(given), dtype=torch.bool)  # (B,)
        present = encoded.mask.any(1).tolist()
        unknown = [text for text, known in zip(given, present, strict=True) if text.strip() and not known]
        if unknown:
            count = f"{len(unknown)} of {len(given)} texts count" if len(given) > 1 else "the text counts"
            warnings.warn(
                f"{count} as absent: the tokenizer does not know most characters of {unknown[0][:40]!r}", stacklevel=2
            )
        return encoded

    def coverage(self, texts: Sequence[str]) -> TextCoverage:
        """Which texts have characters unknown to the tokenizer, and which are longer than a window."""
        tokenizer, report = self.loaded_tokenizer(), TextCoverage(self.options.context_length)
        for i, text in enumerate(texts):
            if not text.strip():
                continue
            read = tokenizer.read(self.prepare_text(text))
            report.given += 1
            if read.is_absent:
                report.unknown.append(i)
                continue
            if read.unknown:
                report.partly.append(i)
            beyond = max(0, len(read.ids) - report.context_length)
            if beyond:
                report.longer.append(i)
            report.tokens, report.beyond = report.tokens + len(read.ids), report.beyond + beyond
        return report

    @property
    def embedding_rows(self) -> int:
        """Number of token ids with an embedding."""
        raise NotImplementedError

    def prepare_text(self, text: str) -> str:
        """The text in the form that the published model was trained on."""
        return text

    def collate(self, items: list[str]) -> dict[str, Tensor]:
        """Texts to ids int64 (B, L) and mask bool (B, L), truncated to `context_length`. An absent text has no
        token."""
        texts = [self.prepare_text(text) for text in items]
        ids, mask = self.loaded_tokenizer().encode(texts, self.options.context_length)  # (B, L) each
        return {"ids": ids, "mask": mask}

    def collate_whole(self, items: list[str]) -> dict[str, Tensor]:
        """As `collate`, with texts longer than `context_length` in windows: ids and mask are (W, L), and clip int64
        (W,) is the index of each window's text. Without long texts there is no `clip`."""
        tokenizer, length = self.loaded_tokenizer(), self.options.context_length
        known = [tokenizer.known(self.prepare_text(text)) for text in items]
        windows = [tokenizer.windows(ids, length) for ids in known]
        ids, mask = tokenizer.pad([window for several in windows for window in several])  # (W, L) each
        if len(ids) == len(items):
            return {"ids": ids, "mask": mask}
        counts = torch.tensor([len(several) for several in windows])  # (B,)
        return {"ids": ids, "mask": mask, "clip": torch.arange(len(items)).repeat_interleave(counts)}

    def forward_whole(self, ids: Tensor, mask: Tensor, clip: Tensor | None = None) -> Encoded:  # type: ignore[override]
        """As `forward`, with the windows of each text joined: sequences end to end; pooled vectors averaged, weighted
        by their tokens."""
        if clip is None:
            return self(ids, mask)
        texts = int(clip[-1]) + 1
        size = max(WINDOWS, texts)
        parts = [self(ids[i : i + size], mask[i : i + size]) for i in range(0, len(ids), size)]
        pooled = torch.cat([part.pooled for part in parts])  # (W, D)
        steps = torch.cat([part.sequence[part.mask] for part in parts])  # (N, C), the tokens of all windows in order
        counts = mask.sum(1)  # (W,)
        windows = torch.bincount(clip, minlength=texts)  # (B,)
        weights = torch.where(windows[clip] > 1, counts, 1)[:, None]  # (W, 1)
        total = pooled.new_zeros(texts, pooled.shape[1]).index_add(0, clip, pooled * weights)  # (B, D)
        pooled = torch.where(windows[:, None] > 1, nn.functional.normalize(total, dim=-1), total)  # (B, D)
        lengths = counts.new_zeros(texts).index_add(0, clip, counts)  # (B,)
        joined = torch.arange(int(lengths.max()), device=mask.device)[None] < lengths[:, None]  # (B, T)
        sequence = steps.new_zeros(*joined.shape, steps.shape[-1]).masked_scatter(joined[..., None], steps)  # (B, T, C)
        return Encoded(pooled, sequence, joined, parts[0].rate)

    def loaded_tokenizer(self) -> Tokenizer:
        """The tokenizer; UserError if there is none yet."""
        if self.tokenizer is None:
            raise UserError("this text tower has no tokenizer: train one, or load the tower with from_pretrained")
        return self.tokenizer
