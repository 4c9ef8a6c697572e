from __future__ import annotations

import subprocess
import sys
import textwrap

CODE = """
    import sys

    allowed = {"grpc", "grpc_health", "grpc_status", "google", "landseer", "typing_extensions"}
    allowed |= set(sys.stdlib_module_names)

    class Blocker:
        def find_spec(self, name, path=None, target=None):
            top = name.partition(".")[0]
            ours = not name.startswith("landseer.") or name.split(".")[1] in ("client", "v1")
            if top not in allowed or not ours:
                raise ModuleNotFoundError(name)

    sys.meta_path.insert(0, Blocker())
    import landseer.client, landseer.client.cli, landseer.client.hits_page, landseer.client.uploads
    with landseer.client.BlockingSearchClient("unix:/nowhere/s") as client:
        assert not client.ready()
    foreign = {name.partition(".")[0] for name in sys.modules} & {"rich", "numpy", "PIL", "torch"}
    print(sorted(foreign))
"""


def test_every_name_that_is_promised_is_there() -> None:
    import landseer.client

    assert sorted(landseer.client._HOMES) == sorted(landseer.client.__all__)
    assert all(getattr(landseer.client, name).__name__ == name for name in landseer.client.__all__)
    assert not hasattr(landseer.client, "Nothing")


def test_help_does_not_load_grpc() -> None:
    code = "import sys; from landseer.client.cli import main; main(['--help']); sys.exit('grpc' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False).returncode == 0


def test_the_library_imports_only_grpc_and_protobuf_packages() -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(CODE)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stderr, done.stdout) == ("", "[]\n")
