"""The base of the text towers, and what their `encode` accepts."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from shared.errors import UserError
from shared.media.arrays import check_text, reject
from stage1_align.towers.base import Encoded, Tower
from stage1_align.towers.inputs import to_list, warn_truncated
from stage1_align.towers.tokenizers import Tokenizer

ENCODE = "text.encode"


class TextTower(Tower):
    """A tower for texts. Its tokenizer is saved with it; an empty text is an absent one."""

    tokenizer: Tokenizer | None = None

    @classmethod
    def corpus_tokenizer(cls, options: dict[str, Any], texts: list[str]) -> Tokenizer | None:
        """A tokenizer trained on texts, for options that bring no tokenizer; else None. Its length is the tower's
        vocab_size."""
        return None

    def encode(self, texts: str | Sequence[str | None] | None) -> Encoded:
        """Embed one text or a list of texts: a list is one batch, a single text a batch of one.

        A text is absent when it is None, blank, or has no character that the tokenizer knows: its mask is all False and
        its pooled vector zero. A text longer than `options.context_length` tokens is cut there and marked in
        `truncated`, with a warning.

        Returns an Encoded: pooled float32 (B, D), of unit length; sequence float32 (B, T, C), one step per token;
        mask bool (B, T); rate and times None; truncated bool (B,). No gradient. UserError for anything but texts.

        >>> encoders.text.encode("that is so funny").pooled.shape
        torch.Size([1, 64])
        >>> encoders.text.encode(["that is so funny", None]).mask.any(1).tolist()
        [True, False]
        """
        items = to_list(ENCODE, texts)
        for item in items:
            if item is not None and not isinstance(item, str):
                raise reject(ENCODE, item, "a text is a str, or None where it is absent; give several as a list")
            check_text(ENCODE, item or "")
        tokenizer, length = self.loaded_tokenizer(), self.options.context_length
        given = ["" if item is None else item for item in items]
        truncated = [len(tokenizer.known(self.prepare_text(text))) > length for text in given]
        encoded = self.encode_prepared(given)
        encoded.truncated = torch.tensor(truncated)  # (B,)
        warn_truncated(truncated, f"context_length={length} tokens")
        return encoded

    def prepare_text(self, text: str) -> str:
        """The text as the published model was trained to read it."""
        return text

    def collate(self, items: list[str]) -> dict[str, Tensor]:
        """Texts to ids int64 (B, L) and mask bool (B, L). A text that is blank or wholly unknown has no token."""
        texts = [self.prepare_text(text) for text in items]
        ids, mask = self.loaded_tokenizer().encode(texts, self.options.context_length)  # (B, L) each
        return {"ids": ids, "mask": mask}

    def loaded_tokenizer(self) -> Tokenizer:
        """The tokenizer; UserError where there is none yet."""
        if self.tokenizer is None:
            raise UserError("this text tower has no tokenizer: train one, or load the tower with from_pretrained")
        return self.tokenizer
