"""Match the features of another tool to clips."""

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
        (["video1/clip_a", "2023/b"], ["video2/clip_a", "2024/b"], {}),
        (["vid2/11", "vid2/12"], ["vid1/11", "vid1/12"], {}),
        (["openface/11"], ["11"], {0: 0}),
        (["s1/7", "wav/0008.wav", "9"], ["s1/007", "008", "s1/09"], {0: 0, 1: 1, 2: 2}),
        (["s2/7"], ["s1/007", "s2/8"], {}),
        (["9" * 5000, "a"], ["a"], {0: 1}),
        (["caf\u0065\u0301"], ["caf\u00e9"], {0: 0}),
        (["clip_1", "clip_010"], ["clip_01", "clip_10"], {0: 0, 1: 1}),
        (["clip_1"], ["clip_01", "clip_001"], {}),
        (["clip_1", "clip_001"], ["clip_01"], {}),
        (["clip_1", "clip_01"], ["clip_01"], {0: 1}),
        (["video1/clip7"], ["video01/clip007"], {0: 0}),
        (["clip_1.05"], ["clip_1.5"], {}),
        (["clip_10"], ["clip_1", "clip_0"], {}),
        (["video_1"], ["video/0001"], {0: 0}),
        (["data/video_1.mp4", "video_2"], ["video/1", "raw/video/2"], {0: 0, 1: 1}),
        (["data/video_1"], ["raw/video/1"], {}),
        (["video-1", "video 2"], ["video_1", "video/2"], {0: 0, 1: 1}),
        (["a-b_c"], ["a_b-c", "a_b_c"], {}),
        (["a_b_c"], ["a/b_c", "a_b/c"], {}),
        (["clip01/openface", "clip02/openface"], ["clip01", "clip02"], {0: 0, 1: 1}),
        (["s1/clip1/of/out", "s2/clip1/of/out", "notes"], ["s1/clip1", "s2/clip1"], {0: 0, 1: 1}),
        (["clip01_open_face", "clip02_open_face"], ["clip01", "clip02"], {0: 0, 1: 1}),
        (["clip01/face", "clip02/face"], ["clip01/face", "clip02/face", "clip02"], {0: 0, 1: 1}),
        (["a/happy", "a/sad", "b/sad", "b/happy"], ["a", "b"], {}),
        (["v1_1", "v2_1"], ["v1", "v2"], {}),
        (["v1/2/face", "v2/2/face"], ["v1", "v2"], {}),
        (["clip01/openface"], ["clip01"], {}),
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


def test_clips_of_names_that_are_spelled_otherwise_are_told():
    assert match([["clip_1"], ["b"], ["c.mp4"]], ["c", "b", "clip_01"]).respelled == [2]
    assert match([["a/face"], ["b/face"]], ["a", "b"]).respelled == [0, 1]


def test_folder_of_a_clip_with_several_files_is_said():
    names = [[f"{clip}/{file}"] for clip in ("v1", "v2") for file in ("face", "labels")]
    assert (
        "no clip is called v1/face, though one is called v1: leave one file"
        in match(names, ["v1", "v2"]).unmatched[0][1]
    )


def test_second_name_is_tried_when_the_first_fits_none():
    assert match([["one", "videos/b.mp4"]], ["a", "b"]).track_of == {1: 0}
    assert match([["03bSn$_$11", "03bSn/11", "03bSn_11"]], ["03bSn_11", "11"]).track_of == {0: 0}
    assert match([["v$_$0001", "v/0001", "v_0001"], ["v$_$2", "v/2", "v_2"]], ["v_1", "v/0002"]).track_of == {
        0: 0,
        1: 1,
    }
