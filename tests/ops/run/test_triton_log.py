from __future__ import annotations

import pytest

from landseer.ops.run.triton_log import is_worth_showing, reasons

PREFIX = '1121 02:54:21.554352 13961 model_lifecycle.cc:642] "'
NO_GPU = f'E{PREFIX}CudaDriverHelper has not been initialized."'
LOST = f'E{PREFIX}failed to load "net" version 1: ValueError: not JSON: {{\\"a\\"\\n\\nAt:\\n  /a.py(70): f"'
DEPENDS = f"E{PREFIX}Invalid argument: ensemble 'full' depends on 'net' which has no loaded version. Model ...\""
ABSENT = f'E{PREFIX}Invalid argument: brief has models that are not available or ambiguous: nut"'
LAST = "error: creating server: Internal - failed to load all models"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([NO_GPU, LOST, DEPENDS, LAST], ['failed to load "net" version 1: ValueError: not JSON: {"a"']),
        (
            [NO_GPU, ABSENT, LAST],
            ["Invalid argument: brief has models that are not available or ambiguous: nut"],
        ),
        ([f'I{PREFIX}loading"', "Segmentation fault"], ["Segmentation fault"]),
        ([LOST, LOST], 1),
        ([NO_GPU], []),
        ([], []),
    ],
)
def test_reasons(lines, expected):
    found = reasons(lines)
    assert len(found) == expected if isinstance(expected, int) else found == expected


def test_what_is_shown():
    assert is_worth_showing(f'W{PREFIX}careful"')
    assert is_worth_showing("Info without Triton's prefix")
    assert not is_worth_showing(f'I{PREFIX}loading"')
    assert not is_worth_showing(NO_GPU)
    assert not is_worth_showing("  ")
