"""Which clip the features of another tool are of."""

import pytest

from stage2_fusion.data.external.matching import match


@pytest.mark.parametrize(
    "names, ids, expected",
    [
        (["b", "a"], ["a", "b"], {0: 1, 1: 0}),
        (["actor_01/x.flac"], ["x"], {0: 0}),
        (["x"], ["actor_01/x"], {0: 0}),
        (["C:\\wav\\X.WAV"], ["x"], {0: 0}),
        (["features/s1/x"], ["data/s1/x", "data/s2/x"], {0: 0}),
        (["7", "8.0"], ["00007", "00008", "9"], {0: 0, 1: 1}),
        (["clip.v2"], ["clip.v2", "clip"], {0: 0}),
        (["x"], ["s1/x", "s2/x"], {}),
        (["s1/x", "s2/x"], ["x"], {}),
        (["s1/x", "x"], ["x"], {0: 1}),
        (["a", "z"], ["a", "b"], {0: 0}),
        (["actor2/happy"], ["actor1/happy", "actor2/sad"], {}),
        (["s3/x"], ["s1/x", "s2/y", "s2/x"], {}),
        (["vid2/11", "vid2/12"], ["vid1/11", "vid1/12"], {}),
        (["openface/11"], ["11"], {0: 0}),
        (["s1/7", "wav/0008.wav", "9"], ["s1/007", "008", "s1/09"], {0: 0, 1: 1, 2: 2}),
        (["s2/7"], ["s1/007", "s2/8"], {}),
        (["9" * 5000, "a"], ["a"], {0: 1}),
        (["caf\u0065\u0301"], ["caf\u00e9"], {0: 0}),
    ],
)
def test_names_find_their_clip_or_none(names, ids, expected):
    found = match([[name] for name in names], ids)
    assert found.track_of == expected
    assert {number for number, _ in found.unmatched} == set(range(len(names))) - set(expected.values())


def test_reasons_say_what_to_do():
    found = match([["x"]], ["s1/x", "s2/x"])
    assert found.unmatched == [(0, "fits several clips (s1/x, s2/x); name it by a longer part of the path")]
    assert "2 features fit clip x equally well" in match([["a/x"], ["b/x"]], ["x"]).unmatched[0][1]


def test_second_name_is_tried_when_the_first_fits_none():
    assert match([["one", "videos/b.mp4"]], ["a", "b"]).track_of == {1: 0}
    assert match([["03bSn$_$11", "03bSn/11", "03bSn_11"]], ["03bSn_11", "11"]).track_of == {0: 0}
