"""What `encode` of the text tower accepts from people."""

import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.encoder_inputs import same
from helpers.rounding import assert_same_up_to_rounding

from shared.errors import UserError
from stage1_align.setup import text_notes


def test_one_text_gives_one_embedding(model):
    encoded = model.text.encode("that is so funny")
    assert encoded.pooled.shape == (1, 8) and encoded.pooled.norm() == pytest.approx(1)
    same(encoded, model.text.encode(["that is so funny"]))
    same(encoded, model.text.encode_prepared(["that is so funny"]))


@pytest.mark.parametrize("absent", [None, "", "  \n", "日本語", "Ω 日本"])
def test_text_without_a_known_character_is_absent(model, absent):
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        encoded = model.text.encode(["I am sad", absent, "so funny Ω"])
        assert not model.text.encode(absent).mask.any()
    assert encoded.mask.any(1).tolist() == [True, False, True] and (encoded.pooled[1] == 0).all()
    said = [str(note.message).partition(":")[0] for note in notes]
    assert said == (["1 of 3 texts count as absent", "the text counts as absent"] if (absent or "").strip() else [])


def test_list_of_texts_gives_what_each_gives_alone(model):
    given = ["that is so funny", None, "dog", "I am sad about the dog"]
    batch = model.text.encode(given)
    for row, text in enumerate(given):
        single = model.text.encode(text)
        steps = int(single.mask.sum())
        assert_same_up_to_rounding(batch.pooled[row], single.pooled[0])
        assert_same_up_to_rounding(batch.sequence[row, :steps], single.sequence[0, :steps])


def test_long_text_is_read_to_its_end(model):
    texts = ["dog", "the dog " * 20, "the dog " * 20 + "funny"]
    encoded = model.text.encode(texts)
    assert encoded.truncated.tolist() == [False, False, False]
    assert encoded.mask.sum(1).tolist() == [len(model.text.tokenizer(text)) for text in texts]
    assert (encoded.pooled[1] - encoded.pooled[2]).abs().max() > 1e-4
    report = model.text.coverage([*texts, "", "日本語", "so funny Ω"])
    assert (report.given, report.longer, report.unknown, report.partly) == (5, [1, 2], [4], [5])
    assert report.beyond == sum(len(model.text.tokenizer(text)) - 16 for text in texts[1:])


def test_training_says_which_texts_it_cuts_and_which_are_unknown(model):
    data = SimpleNamespace(corpus=lambda: ["dog", "the dog " * 20, "日本語"])
    unknown, longer = text_notes(model, data)
    assert unknown.startswith("1 of 3 texts count as missing, such as '日本語'")
    assert "1 of 3 texts are longer than context_length 16" in longer
    assert longer.endswith("training cuts them there; raise towers.text.options.context_length")


@pytest.mark.parametrize("wrong", [3, b"dog", ["dog", 3], [["dog"]], np.array(["dog"]), {"text": "dog"}, []])
def test_what_is_no_text_is_refused_in_one_line(model, wrong):
    with pytest.raises(UserError, match=r"text\.encode: got") as error:
        model.text.encode(wrong)
    assert "\n" not in str(error.value)


def test_half_a_character_is_refused_in_one_line(model):
    for wrong in ("\ud800", ["dog", "so funny \ud83d"]):
        with pytest.raises(UserError, match=r"text\.encode: got str .*not valid Unicode"):
            model.text.encode(wrong)
