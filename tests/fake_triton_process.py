"""The stand-in for Triton as a process of its own, which can be killed and stopped. Run as a script it serves."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import sys
from pathlib import Path

from landseer.ops.run.ports import free_port, is_free
from landseer.ops.run.processes import Child, ChildConfig
from landseer.ops.run.triton import TritonConfig, TritonServer


class FakeTritonServer(TritonServer):
    """Serves the models of `fake_triton`; those of a repository named `other-models` have other weights."""

    def __init__(self) -> None:
        super().__init__(TritonConfig(repository=Path("models"), grpc_port=free_port()))

    def start(self) -> None:
        command = [sys.executable, __file__, str(self.config.grpc_port), self.config.repository.name]
        self._child = Child.start(ChildConfig(command=command, env=dict(os.environ)))

    @property
    def alive(self) -> bool:
        # Without a relay, which only the real one needs.
        return self._child is not None and self._child.poll() is None

    @property
    def ready(self) -> bool:
        return self.alive and not is_free(self.config.grpc_port)


async def serve(port: int, repository: str) -> None:
    from fake_triton import PROFILE, FakeTriton

    profile = dataclasses.replace(PROFILE, weights_sha256="f" * 64) if repository == "other-models" else PROFILE
    await FakeTriton(profile=profile, port=port).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), sys.argv[2]))
