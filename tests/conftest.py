"""What holds for all tests."""

import signal


def pytest_configure() -> None:
    """Let Ctrl-C be heard by what the tests start.

    A shell starts background jobs, and so perhaps the whole test run, with SIGINT ignored, and every child inherits
    that. Tests that send SIGINT would then wait for ever.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
