import os
import signal

import pytest

from shared.training.signals import SigtermHandler


def test_sigterm_is_recorded_and_the_previous_handler_restored():
    received = []
    original = signal.signal(signal.SIGTERM, lambda *_: received.append("previous handler"))
    try:
        with SigtermHandler() as sigterm:
            assert not sigterm.requested
            os.kill(os.getpid(), signal.SIGTERM)
            assert sigterm.requested and not received
        os.kill(os.getpid(), signal.SIGTERM)
        assert received == ["previous handler"]
        with pytest.raises(ZeroDivisionError), SigtermHandler():
            raise ZeroDivisionError
        os.kill(os.getpid(), signal.SIGTERM)
        assert received == ["previous handler"] * 2
    finally:
        signal.signal(signal.SIGTERM, original)
