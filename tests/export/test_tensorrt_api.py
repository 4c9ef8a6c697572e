"""Is TensorRT's API used as its own Python bindings declare it?

The wheel of the bindings is small and on PyPI, and can be imported without TensorRT: its extension module needs three
libraries, of which it uses next to nothing until something is built. Empty ones of the same names stand in, stubs are
drawn from the extension itself, and mypy reads our code by them. What the calls do on a GPU, this cannot say.
"""

import ast
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIBRARIES = ("libnvinfer.so.10", "libnvonnxparser.so.10", "libnvinfer_plugin.so.10")
USERS = ("builder", "device", "engine", "log", "timing_cache")
"""Modules of export/tensorrt that call TensorRT."""

SYMBOLS = (
    *(f"create{what}_INTERNAL" for what in ("InferBuilder", "InferRefitter", "InferRuntime")),
    *(f"create{what}_INTERNAL" for what in ("NvOnnxParser", "NvOnnxParserRefitter")),
    *("getNvOnnxParserVersion", "getPluginRegistry", "getBuilderPluginRegistry", "initLibNvInferPlugins"),
)
"""All that the extension asks of them, and it calls only the parser's version while it is imported."""
SETTINGS = """
[mypy]
strict = True
mypy_path = {stubs}:{links}
namespace_packages = True
explicit_package_bases = True
follow_imports = skip
ignore_missing_imports = True
disallow_subclassing_any = False
disallow_untyped_calls = False
warn_return_any = False
cache_dir = {cache}
[mypy-landseer.export.tensorrt.*]
follow_imports = normal
[mypy-tensorrt.*]
follow_imports = normal
[mypy-tensorrt_bindings.*]
follow_imports = silent
ignore_errors = True
"""


@pytest.fixture(scope="module")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bindings")
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler, cc, to make stand-ins for TensorRT's libraries")
    if find_spec("tensorrt_bindings") is None:
        pytest.skip("needs TensorRT's bindings: pip install 'landseer[dev]'")
    for name in LIBRARIES:
        library = ["cc", "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", str(folder / name), "-x", "c", "-"]
        source = "".join(f"void *{symbol}(void) {{ return 0; }}\n" for symbol in SYMBOLS)
        subprocess.run(library, check=True, input=source, text=True)
    stubgen = [sys.executable, "-c", "from mypy.stubgen import main; main()"]
    command = [*stubgen, "--inspect-mode", "-m", "tensorrt_bindings.tensorrt"]
    environment = os.environ | {"LD_LIBRARY_PATH": str(folder)}
    subprocess.run([*command, "-o", str(folder / "stubs")], check=True, env=environment, capture_output=True)
    (folder / "stubs" / "tensorrt_bindings" / "__init__.pyi").touch()
    mend(folder / "stubs" / "tensorrt_bindings" / "tensorrt.pyi")
    front = folder / "stubs" / "tensorrt" / "__init__.pyi"
    front.parent.mkdir()
    front.write_text("from tensorrt_bindings.tensorrt import *\n__version__: str\n")
    return folder


def mend(path: Path) -> None:
    """Replace signatures that are no Python, as pybind11 writes a few, by ones that take anything.

    And TensorRT calls one of its types `bool`: what returns Python's has to say so.
    """
    lines = ["import builtins", *path.read_text().replace("-> bool:", "-> builtins.bool:").splitlines()]
    for _ in range(20):
        try:
            ast.parse("\n".join(lines))
            break
        except SyntaxError as error:
            assert error.lineno is not None
            lines[error.lineno - 1] = re.sub(r"\(.*\) ->", "(self, *args, **kwargs) ->", lines[error.lineno - 1])
    path.write_text("\n".join(lines))


def checked(stubs: Path, package: Path) -> str:
    """Return what mypy has to say of the modules that call TensorRT."""
    links = package / "links" / "landseer" / "export"
    links.mkdir(parents=True)
    (links / "tensorrt").symlink_to(package / "tensorrt")
    config = package / "mypy.ini"
    config.write_text(SETTINGS.format(stubs=stubs / "stubs", links=package / "links", cache=stubs / "cache"))
    modules = [part for name in USERS for part in ("-m", f"landseer.export.tensorrt.{name}")]
    command = [sys.executable, "-m", "mypy", "--config-file", str(config), *modules]
    return subprocess.run(command, check=False, capture_output=True, text=True, cwd=package).stdout


def test_our_calls_fit_the_bindings(stubs: Path, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "export" / "tensorrt", tmp_path / "tensorrt")
    said = checked(stubs, tmp_path)
    assert "Success" in said, said


def test_calls_that_do_not_fit_are_found(stubs: Path, tmp_path: Path) -> None:
    """A name that there is not, an argument too few, a wrong type."""
    shutil.copytree(ROOT / "export" / "tensorrt", tmp_path / "tensorrt")
    path = tmp_path / "tensorrt" / "builder.py"
    text = path.read_text()
    for right, wrong in (
        ("trt.BuilderFlag.TF32", "trt.BuilderFlag.TF33"),
        ("builder.build_serialized_network(network, config)", "builder.build_serialized_network(network)"),
        ("trt.Dims(span.most)", "span.most"),
    ):
        assert right in text
        text = text.replace(right, wrong)
    path.write_text(text)
    said = checked(stubs, tmp_path)
    assert "Found 3 errors in 1 file" in said, said
