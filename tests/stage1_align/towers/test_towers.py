import numpy as np
import pytest
import torch
from helpers.rounding import assert_same_up_to_rounding
from helpers.stage1_tiny import TEXTS, encoders, items

from shared.errors import UserError
from stage1_align.towers import TOWERS
from stage1_align.towers.htsat import Htsat
from stage1_align.towers.text_transformer import SentencePieceTokenizer

MISSING = {"vision": 1, "audio": 2, "text": 3}


@pytest.fixture(scope="module")
def model():
    return encoders()


@pytest.mark.parametrize("modality", ["vision", "audio", "text"])
def test_batch_equals_single(model, modality):
    tower, batch_items = getattr(model, modality), items()[modality]
    batch = tower.encode_prepared(batch_items)
    for row, item in enumerate(batch_items):
        single = tower.encode_prepared([item])
        steps = single.sequence.shape[1]
        assert_same_up_to_rounding(batch.pooled[row], single.pooled[0])
        assert_same_up_to_rounding(batch.sequence[row, :steps], single.sequence[0])
        assert batch.mask[row].sum() == single.mask[0].sum()


@pytest.mark.parametrize("modality", ["vision", "audio", "text"])
def test_absent_items_are_masked_and_zero(model, modality):
    encoded = getattr(model, modality).encode_prepared(items()[modality])
    absent = MISSING[modality]
    assert not encoded.mask[absent].any()
    assert (encoded.sequence[absent] == 0).all()
    assert (encoded.pooled[absent] == 0).all()
    present = [row for row in range(4) if row != absent]
    torch.testing.assert_close(encoded.pooled[present].norm(dim=1), torch.ones(3))
    assert encoded.sequence.shape[-1] == getattr(model, modality).width


def test_audio_steps_are_distinct_at_the_stated_rate(model):
    seconds = 5.0
    sound = np.random.default_rng(0).uniform(-0.3, 0.3, int(seconds * 16000)).astype(np.float32)
    encoded = model.audio.encode_prepared([sound])
    assert int(encoded.mask.sum()) == int(np.ceil(seconds * encoded.rate))
    steps = encoded.sequence[0][encoded.mask[0]]
    assert (steps[1:] - steps[:-1]).abs().amax(1).min() > 1e-4  # HTS-AT itself repeats each frame


def test_short_clip_is_padded_not_stretched(model):
    """The frames of the first second are the same whether or not silence follows."""
    sound = np.random.default_rng(0).uniform(-0.3, 0.3, 16000).astype(np.float32)
    short = model.audio.encode_prepared([sound])
    longer = model.audio.encode_prepared([np.concatenate([sound, np.zeros(8000, np.float32)])])
    steps = int(short.mask.sum())
    assert_same_up_to_rounding(short.sequence[0, :steps], longer.sequence[0, :steps])


def test_laion_clap_package_is_not_imported():
    import subprocess
    import sys

    code = "import sys, stage1_align.towers.htsat as a; a.htsat_module(); print('laion_clap' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


def test_spectrum_equals_that_of_laion_clap(model):
    """torch.stft against the convolution of the published HTS-AT."""
    from torchlibrosa.stft import Spectrogram

    o = model.audio.options
    published = Spectrogram(n_fft=o.n_fft, hop_length=o.hop, win_length=o.n_fft, freeze_parameters=True)
    waveform = torch.from_numpy(np.random.default_rng(0).uniform(-0.5, 0.5, (2, model.audio.window)).astype(np.float32))
    expected = model.audio.net.logmel_extractor(published(waveform))  # (2, 1, F + 1, M)
    at = torch.tensor([[0, 1], [0, 0]])  # (2, N)
    got = model.audio._mel(model.audio._power(waveform), at, torch.full((2,), model.audio.window))
    torch.testing.assert_close(got, expected[:, :, : got.shape[2]], rtol=0, atol=1e-3)  # dB


def test_calibration_sets_the_mel_statistics(model):
    tower = encoders().audio
    rng = np.random.default_rng(0)
    sounds = [rng.uniform(-1, 1, tower.window).astype(np.float32) * level for level in (0.5, 0.01)]
    tower.calibrate(sounds)
    whole, at = torch.tensor([tower.window]), torch.zeros(2, 1, dtype=torch.long)  # (1,), (2, N)
    mels = torch.cat([tower._mel(tower._power(torch.from_numpy(s)[None]), at, whole)[0, 0] for s in sounds])
    torch.testing.assert_close(tower.net.bn0.running_mean, mels.mean(0))
    before = tower.net.bn0.running_mean.clone()
    tower.train()(**tower.collate(sounds))
    torch.testing.assert_close(tower.net.bn0.running_mean, before)  # statistics do not change in training
    with pytest.raises(UserError, match="no clip has sound"):
        tower.calibrate([np.zeros(0, np.float32)])


def test_every_trained_parameter_gets_a_gradient():
    """DistributedDataParallel fails on a parameter without a gradient, also on a process whose clips all lack a
    modality."""
    for empty in (False, True):
        model = encoders().train()
        batch = items()
        if empty:
            batch = {
                "vision": batch["vision"][1:2],
                "audio": batch["audio"][2:3],
                "text": batch["text"][3:4],
            }
        total = 0
        for modality, values in batch.items():
            tower = getattr(model, modality)
            encoded = tower(**tower.collate(values))
            total = total + encoded.pooled.sum() + 0 * encoded.sequence.sum()
        total.backward()
        assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
        assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_unknown_option_names_the_nearest():
    with pytest.raises(UserError, match="did you mean 'spec_size'"):
        Htsat.from_options({"spec_sise": 64}, 8)


@pytest.mark.parametrize("edges", [{"fmin": 9000}, {"fmin": 8000}, {"fmax": 8001}, {"sample_rate": 8000}])
def test_mel_bands_outside_the_sound_are_refused(edges):
    with pytest.raises(UserError, match="no mel bands in this range; give fmin below fmax"):
        Htsat.Options(**edges)


def test_tokenizer_with_few_pieces_is_refused(tmp_path):
    tokenizer = SentencePieceTokenizer.train(TEXTS, 60)
    tokenizer.save(tmp_path)
    assert SentencePieceTokenizer.load(tmp_path)("so funny") == tokenizer("so funny")
    with pytest.raises(UserError, match="no tokenizer here"):
        SentencePieceTokenizer.load(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"^1 different texts give .* give more clips with words, "):
        SentencePieceTokenizer.train(["aa"], 60)


@pytest.mark.parametrize(
    "modality, name", [(modality, name) for modality in TOWERS for name in TOWERS[modality].names()]
)
def test_renamed_options_are_refused_with_their_new_names(modality, name):
    tower = TOWERS[modality].get(name)
    for old, new in getattr(tower.Options, "RENAMED", {}).items():
        with pytest.raises(UserError, match=f"{old} was renamed: use {new}"):
            tower.from_options({old: True}, 8)


@pytest.mark.parametrize(
    "modality, name, options",
    [
        ("text", "transformer", {"model_cfg": {"hidden_size": 16, "num_attention_heads": 0}}),
        ("text", "transformer", {"model_cfg": {"hidden_size": 16, "num_attention_heads": 3}}),
        ("vision", "open_clip", {"vision_cfg": {"patch_size": "none", "width": 32, "head_width": 16, "layers": 1}}),
        ("vision", "open_clip", {"vision_cfg": {"patch_size": 0, "width": 32, "head_width": 16, "layers": 1}}),
        ("audio", "htsat", {"embed_dim": 8, "depths": [1, 1], "num_heads": [3, 3], "spec_size": 64}),
    ],
)
def test_options_that_a_library_cannot_build_are_one_line(modality, name, options):
    with pytest.raises(UserError) as error:
        TOWERS[modality].get(name).from_options(options, 8)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400
