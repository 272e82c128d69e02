"""Transcripts that a text encoder may not be able to read: with rare letters or many words."""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from shared.text import UNREADABLE, counted, first_few, has_words, repair_surrogates, says_something, words

CONTEXT = 48
"""Context length of the default text tower in tokens; a word is one or more."""
COVERAGE = 0.9995
"""Share of the characters known to a tokenizer trained on a corpus: sentencepiece drops the rarest."""
PIECE = 16
"""Most characters in a token."""
UNSPACED = "CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR"
"""Scripts, by Unicode name, without spaces between words; every letter counts as a word."""
HTML_CODE = re.compile(r"&(?:#\d+|#x[0-9a-fA-F]+|amp|quot|apos|lt|gt|nbsp);")


class Words(NamedTuple):
    """What is said in a clip."""

    id: str
    split: str
    transcript: str


@dataclass
class TranscriptReport:
    """Ids of the clips with each kind of transcript."""

    given: int = 0
    """Transcripts that are not blank."""
    silent: list[str] = field(default_factory=list)
    """Only punctuation: the text counts as missing."""
    unknown: list[str] = field(default_factory=list)
    """Half of their letters or more do not occur in the training texts (all texts if there are no splits): for a
    tokenizer trained on them, the text is missing."""
    partly: list[str] = field(default_factory=list)
    """Other transcripts with such letters."""
    longer: list[str] = field(default_factory=list)
    """More words than CONTEXT."""
    beyond: int = 0
    """Words beyond the first CONTEXT, over all transcripts."""
    html: list[str] = field(default_factory=list)
    """With HTML codes such as &#39;, which an encoder reads literally."""
    scripts: dict[str, int] = field(default_factory=dict)
    """Transcripts by the script of most letters, by Unicode name: LATIN, CYRILLIC, CJK, ..."""

    def notes(self, guess: bool = True) -> list[str]:
        """A line for each kind that occurs. guess: also for kinds that depend on the encoder."""
        notes = []
        if self.silent:
            notes.append(f"{_some(self.silent)} without a letter, digit or symbol: counted as missing")
        if self.html:
            notes.append(f"{_some(self.html)} with HTML codes such as &#39;: replace them by their characters")
        return notes + (self._guesses() if guess else [])

    def _guesses(self) -> list[str]:
        notes = []
        if self.unknown:
            notes.append(
                f"{_some(self.unknown)} mostly of letters that the words for training lack: missing for a tokenizer "
                "trained on those; give a pretrained text encoder"
            )
        if len(self.scripts) > 1 or (self.scripts and "LATIN" not in self.scripts):
            counts = ", ".join(f"{name.title()} {count}" for name, count in self.scripts.items())
            notes.append(
                f"letters of {counts}: an encoder may not know them all; emit check --encoders DIR counts for one"
            )
        if self.longer:
            notes.append(
                f"{_some(self.longer)} of more than {CONTEXT} words, {self.beyond} words beyond: training of a text "
                f"tower cuts them; raise towers.text.options.context_length ({CONTEXT} tokens by default)"
            )
        return notes


def inspect_transcripts(clips: Iterable[Words]) -> TranscriptReport:
    """Report on the transcripts that are not blank."""
    given = [clip._replace(transcript=repair_surrogates(clip.transcript)) for clip in clips if clip.transcript.strip()]
    report = TranscriptReport(len(given))
    known = _known_characters([clip.transcript for clip in given if clip.split in ("", "train")])
    scripts: Counter[str] = Counter()
    for clip in given:
        if HTML_CODE.search(clip.transcript):
            report.html.append(clip.id)
        if not has_words(clip.transcript):
            report.silent.append(clip.id)
            continue
        says = says_something(clip.transcript)
        meaningful = [c for c in clip.transcript if says(c) or c == UNREADABLE]
        strange = sum(not set(_folded(c)) <= known or c == UNREADABLE for c in meaningful)
        if known and strange:
            (report.unknown if 2 * strange >= len(meaningful) else report.partly).append(clip.id)
        beyond = count_words(clip.transcript) - CONTEXT
        if beyond > 0:
            report.longer.append(clip.id)
            report.beyond += beyond
        if script := _main_script(meaningful):
            scripts[script] += 1
    report.scripts = dict(scripts.most_common())
    return report


def count_words(text: str) -> int:
    """The number of words, where PIECE characters of a long word, or a letter of a script without spaces, count as one:
    no tokenizer gives fewer tokens, except one that knows whole words of such a script."""
    return sum(len(word) if _script(word[0]) in UNSPACED else math.ceil(len(word) / PIECE) for word in words(text))


def _known_characters(texts: Sequence[str]) -> set[str]:
    """The most frequent characters that make up COVERAGE of the texts, chosen as in sentencepiece."""
    counts = Counter(c for text in texts for c in _folded(text) if not c.isspace())
    total, covered, known = counts.total(), 0, set()
    for character, count in counts.most_common():
        if covered >= COVERAGE * total:
            break
        known.add(character)
        covered += count
    return known


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


def _main_script(characters: Sequence[str]) -> str:
    """The script of most of the letters; "" without any."""
    counts = Counter(script for c in characters if c.isalpha() and (script := _script(c)))
    return counts.most_common(1)[0][0] if counts else ""


def _script(character: str) -> str:
    return "LATIN" if character.isascii() else unicodedata.name(character, "").partition(" ")[0]


def _some(ids: list[str]) -> str:
    return f"{counted(len(ids), 'transcript')} ({first_few(ids)})"
