"""Each promise of docs/promises.md names tests, and they exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROWS = re.findall(r"^\| (?!promise|---)(.*) \| (.*) \|$", (ROOT / "docs" / "promises.md").read_text(), re.MULTILINE)


def test_every_promise_is_held_by_tests_that_exist() -> None:
    files = [path for path in (ROOT / "tests").rglob("test_*.py") if path != Path(__file__)]
    known = {
        name for path in files for name in re.findall(r"^(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE)
    }
    assert len(ROWS) >= 24
    for promise, holders in ROWS:
        named = re.findall(r"`(test_\w+)`", holders)
        assert named and set(named) <= known, (promise, sorted(set(named) - known))
