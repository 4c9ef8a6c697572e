"""Decodes hostile pictures that are chosen by coverage; `make fuzz` runs it, after installing atheris.

    python tests/coverage_fuzz.py -runs=50000 FOLDER

Options are those of libFuzzer; what it finds to be new is kept in FOLDER. Coverage is that of Python: of this project's
`pictures` and of Pillow's readers, which take files apart in Python and leave pixels to C.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import atheris

FOLDER = Path(__file__).parent


def main() -> None:
    """Run until as many pictures are decoded as was asked for. An unexpected error ends it with status 77."""
    sys.path[:0] = [str(FOLDER), str(FOLDER / "ensemble/pictures")]
    with atheris.instrument_imports(include=["PIL", "landseer.ensemble.pictures"]):
        from test_pictures import VARIANTS, attempt, checked
    folder = next((Path(word) for word in sys.argv[1:] if not word.startswith("-")), None)
    if folder is None:
        raise SystemExit("usage: coverage_fuzz.py [-runs=N] FOLDER")
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in VARIANTS.items():
        (folder / name.replace(" ", "-")).write_bytes(data)
    atheris.Setup(sys.argv, _decoding(attempt, checked))
    atheris.Fuzz()


def _decoding(attempt: Callable[[bytes], object], checked: Callable[[bytes], bytes]) -> Callable[[bytes], None]:
    def decode(data: bytes) -> None:
        # The last byte decides whether a PNG gets the right checksums, without which a reader looks no further.
        attempt(checked(data) if data[-1:] and data[-1] % 2 and data.startswith(b"\x89PNG") else data)

    return decode


if __name__ == "__main__":
    main()
