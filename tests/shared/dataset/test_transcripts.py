"""What is reported about transcripts before any encoder reads them."""

import pytest

from shared.dataset.transcripts import CONTEXT, Words, count_words, inspect_transcripts
from shared.text import has_words, repair_surrogates, words
from stage1_align.towers.text_transformer import TextOptions
from stage1_align.towers.tokenizers import SentencePieceTokenizer

TRAIN = ["that is so funny, I can't stop laughing", "we cried over a very sad old song", "wow, quite a job"]
OTHERS = {
    "cyrillic": "Привет, мир!",
    "mixed": "so sad привет",
    "accent": "a sad café song",
    "han": "你好吗" * 20,
    "dots": "...",
    "notes": "♪♪",
    "mojibake": "\ufffd\ufffd\ufffd",
    "html": "it&#39;s so sad",
    "long": "sad " * (CONTEXT + 3),
    "fits": "sad " * CONTEXT,
    "giant": "a" * 1000,
    "invisible": "\u200b\u200d\x00",
    "composed": "café",
    "blank": " ",
}


@pytest.fixture(scope="module")
def report():
    train = [Words(f"t{i}", "train", text) for i, text in enumerate(TRAIN)]
    return inspect_transcripts([*train, *(Words(name, "test", text) for name, text in OTHERS.items())])


def test_unknown_letters_silence_codes_and_length_are_counted(report):
    assert report.given == len(TRAIN) + len(OTHERS) - 1
    assert report.silent == ["dots", "mojibake", "invisible"]
    assert report.unknown == ["cyrillic", "mixed", "han", "notes"]
    assert report.partly == ["accent", "html", "composed"]  # é, é, and the digits of &#39;
    assert report.html == ["html"]
    assert report.longer == ["han", "long", "giant"]
    assert report.beyond == (60 - CONTEXT) + 3 + (63 - CONTEXT)
    assert report.scripts == {"LATIN": 9, "CYRILLIC": 2, "CJK": 1}
    notes = "\n".join(report.notes())
    assert "3 transcripts (dots, mojibake, invisible) without a letter" in notes
    assert "4 transcripts (cyrillic, mixed, han and 1 more) mostly of letters that the words for training lack" in notes
    assert "letters of Latin 9, Cyrillic 2, Cjk 1" in notes
    assert f"3 transcripts (han, long, giant) of more than {CONTEXT} words, {report.beyond} words beyond" in notes


def test_unknown_is_what_a_tokenizer_trained_on_the_words_masks(report):
    tokenizer = SentencePieceTokenizer.train(TRAIN, 512)
    masked = [name for name, text in OTHERS.items() if text.strip() and not tokenizer.known(text)]
    assert masked == [name for name in OTHERS if name in {*report.unknown, *report.silent}]
    assert TextOptions().context_length == CONTEXT


def test_plain_words_give_no_note():
    assert inspect_transcripts([Words("a", "", "so funny"), Words("b", "", "so sad")]).notes() == []
    assert inspect_transcripts([]).notes() == []


@pytest.mark.parametrize(
    "text, expected",
    [
        ("Don't stop", ["don't", "stop"]),
        ("cafe\u0301 caf\u00e9", ["café", "café"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("can\u2019t \u00adso\u00adft", ["can't", "soft"]),
        ("_a_b", ["a", "b"]),
    ],
)
def test_words_hold_their_marks_in_any_unicode_form(text, expected):
    assert words(text) == expected


def test_words_are_counted_also_where_no_space_divides_them():
    assert [count_words(text) for text in ("a b", "你好 ok", "a" * 33, "สวัสดี")] == [2, 3, 3, 6]
    assert not has_words("?! …") and has_words("😂") and has_words("42")
    assert repair_surrogates("a \ud83d\ude02 \ud83d b") == "a 😂 \ufffd b"
