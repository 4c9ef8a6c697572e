"""What must hold of the checkout as a whole."""

import filecmp
import re
import subprocess
import sys
from pathlib import Path

import grimp

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


def test_no_module_is_there_for_the_tests_alone() -> None:
    """What no other module imports, something outside tests/ runs by its name or path."""
    graph = grimp.build_graph("landseer.v1", *TOP.values())
    files = [path for top in TOP for path in (ROOT / top).rglob("*.py") if "v1" not in path.parts]
    text = {path: path.read_text() for path in (*files, ROOT / "Makefile", *(ROOT / "ops").glob("*.sh"))}
    for module in graph.modules:
        if "v1" in module.split(".") or graph.find_children(module) or graph.find_modules_that_directly_import(module):
            continue
        path = ROOT / Path(*module.split(".")[1:]).with_suffix(".py")
        names = (module, path.name if path.parent == ROOT / "ops" else module)
        assert any(name in said for other, said in text.items() if other != path for name in names), module


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
