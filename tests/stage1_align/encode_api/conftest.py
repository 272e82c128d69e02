import pytest
from helpers.stage1_tiny import encoders

from stage1_align import AlignedEncoders


@pytest.fixture(scope="package")
def model() -> AlignedEncoders:
    return encoders(seed=1)
