"""Options that people look for among those of a layout."""

import pytest

from shared.errors import UserError
from shared.layouts.registry import read_source


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"label_range": [1, 7]}, "write --label_range=1,7"),
        ({"missing_labels": -1}, "write --missing_labels=-1"),
        ({"label_range": {"joy": [1, 7]}}, "write --label_range='{joy: [1, 7]}'"),
    ],
    ids=["range", "missing", "each"],
)
def test_label_options_among_those_of_the_layout_are_answered_with_the_right_one(options, told, tmp_path):
    (tmp_path / "clip.wav").touch()
    with pytest.raises(UserError) as error:
        read_source(tmp_path, None, options)
    assert str(error.value).endswith(told)
