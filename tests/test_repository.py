"""What must hold of the checkout as a whole."""

import filecmp
import re
import subprocess
import sys
from pathlib import Path

from landseer.ensemble.telemetry.metrics import Metrics

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
TOP = {"client": "landseer.client", "ensemble": "landseer.ensemble", "export": "landseer.export", "ops": "landseer.ops"}


def test_every_package_on_disk_is_installed_and_no_other() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {"landseer.v1"}
    for folder, package in TOP.items():
        for marker in (ROOT / folder).rglob("__init__.py"):
            inside = marker.parent.relative_to(ROOT / folder).parts
            if inside != ("v1",):
                found.add(".".join((package, *inside)))
    assert set(declared) == found
    assert len(declared) == len(set(declared))


def test_every_metric_is_documented_and_every_documented_one_exists() -> None:
    text = (ROOT / "docs" / "metrics.md").read_text()
    documented = set(re.findall(r"^\| `([a-z_]+)` \|", text, re.MULTILINE))
    existing = {
        f"{family.name}_total" if family.type == "counter" else family.name
        for family in Metrics().registry.collect()
        if not family.name.startswith("process_")
    }
    assert documented == existing


def test_the_generated_api_is_that_of_the_proto_files(tmp_path: Path) -> None:
    command = ["bash", "ops/generate_proto.sh", str(Path(sys.executable).parent), str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == sorted(path.name for path in (ROOT / "client" / "v1").glob("*_pb2*"))
    _, differing, missing = filecmp.cmpfiles(tmp_path, ROOT / "client" / "v1", names, shallow=False)
    assert (differing, missing) == ([], []), "run `make proto`"


def test_the_help_names_every_target_of_the_makefile() -> None:
    shown = subprocess.run(["make", "help"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    targets = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert targets is not None
    assert set(targets[1].split()) == set(re.findall(r"^  make ([a-z-]+)", shown, re.MULTILINE))
