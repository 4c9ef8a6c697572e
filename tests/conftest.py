"""What holds for all tests."""

import functools
import logging
import signal
import sys

from hypothesis import settings

# On a busy machine an example may take longer than hypothesis's 200 ms, which says nothing about it.
settings.register_profile("landseer", deadline=None)
settings.load_profile("landseer")


class Deaf(logging.Logger):
    """A logger that takes no handlers."""

    def addHandler(self, hdlr: logging.Handler) -> None:
        """Take no handler."""


def pytest_configure() -> None:
    """Let Ctrl-C be heard by what the tests start, and let torch trace nothing.

    A shell starts background jobs, and so perhaps the whole test run, with SIGINT ignored, and every child inherits
    that. Tests that send SIGINT would then wait for ever.

    pytest 9 gives a handler to each logger that does not propagate. torch takes a handler of this one as the wish to
    have every graph written out, and an export then takes longer.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    usual = logging.getLoggerClass()
    logging.setLoggerClass(Deaf)
    logging.getLogger("torch.__trace")
    logging.setLoggerClass(usual)


def pytest_collection_finish() -> None:
    """Let torch read its table of ONNX operators once for all exports: 2 of the 3 s that the smallest takes."""
    if "landseer.export" in sys.modules and "torch" in sys.modules:
        from torch.onnx._internal.exporter._registration import ONNXRegistry

        ONNXRegistry.from_torchlib = staticmethod(functools.cache(ONNXRegistry.from_torchlib))
