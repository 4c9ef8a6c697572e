"""The command in a separate process, as operators run it."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import gc
import json
import signal
import sys
from pathlib import Path

import grpc
import pytest
from fake_triton import PROFILE, free_port

from landseer.ensemble.app import serve as served
from landseer.ensemble.app.serve import add_arguments, config_of
from landseer.ensemble.config import LOCAL_FEATURES
from landseer.v1 import search_pb2, search_pb2_grpc

COMMAND = """
import argparse, sys
from landseer.ensemble.app import serve
parser = argparse.ArgumentParser()
serve.add_arguments(parser)
sys.exit(serve.run(parser.parse_args()))
"""


@pytest.fixture
async def serve(fake_triton, tmp_path):
    """Starts `landseer serve`; later options win."""
    processes = []

    async def start(*options):
        base = ["--listen", f"127.0.0.1:{free_port()}", "--metrics", "none", "--triton", fake_triton.address]
        base += ["--store", str(tmp_path / "store"), "--store-limit", "64MiB", *options]
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", COMMAND, *base, stderr=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


def options():
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser


async def until_said(process, text):
    while line := (await asyncio.wait_for(process.stderr.readline(), 20)).decode():
        if text in line:
            return line
    raise AssertionError(f"ended without saying {text!r}")


async def last_line(process):
    _, errors = await asyncio.wait_for(process.communicate(), 20)
    return errors.decode().strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("given", "keypoints", "deep"),
    [(None, True, False), ("keypoints", True, False), ("deep", False, True), ("both", True, True), ("none", 0, 0)],
)
def test_the_local_features_asked_for_are_kept_and_keypoints_by_default(given, keypoints, deep):
    config = config_of(options().parse_args(["--store", "x", *(("--local-features", given) if given else ())]))
    assert (config.keypoints, config.deep) == (keypoints, deep)


@pytest.mark.parametrize("given", [[], ["all"]])
def test_unknown_local_features_are_refused_with_the_known_ones(given, capsys):
    with pytest.raises(SystemExit):
        options().parse_args(["--store", "x", "--local-features", *given])
    said = capsys.readouterr().err
    assert "--local-features" in said
    assert not given or all(name in said for name in LOCAL_FEATURES)


@pytest.mark.parametrize("given", ["qdrant", "http://user:secret@far:6333/a", "milvus://user:secret@far:19530/a"])
def test_an_unknown_engine_is_refused_without_what_may_be_a_password(given, capsys):
    with pytest.raises(SystemExit):
        options().parse_args(["--store", "x", "--engine", given])
    said = capsys.readouterr().err
    assert "expected" in said and "milvus://HOST:PORT/COLLECTION" in said
    assert given.partition("://")[0] in said and "secret" not in said


def test_a_store_is_a_folder_or_the_address_of_a_database_without_a_password(capsys):
    assert options().parse_args(["--store", "var/store"]).store == Path("var/store")
    url = "postgresql://me@far/pictures?sslmode=verify-full"
    engine = "milvus://127.0.0.1:19530/pictures"
    made = config_of(options().parse_args(["--store", url, "--engine", engine]))
    assert str(made.store) == "postgresql://far/pictures" and made.store.url == url
    for secret in ("postgres://me:secret@far/a", "postgresql:///a?password=secret", "postgres:me:secret@far/a"):
        with pytest.raises(SystemExit):
            options().parse_args(["--store", secret])
        assert "secret" not in capsys.readouterr().err


async def test_the_collector_passes_over_what_is_there_once_it_serves():
    class Starting:
        async def ready(self):
            await answer.wait()

    answer, before = asyncio.Event(), gc.get_freeze_count()
    freezing = asyncio.create_task(served._freeze_when_ready(Starting()))
    try:
        await asyncio.sleep(0)
        assert gc.get_freeze_count() == before
        answer.set()
        await freezing
        assert gc.get_freeze_count() > before
    finally:
        gc.unfreeze()


async def test_it_serves_until_sigterm_and_ends_well(serve):
    process = await serve()
    await until_said(process, "index loaded")
    process.send_signal(signal.SIGTERM)
    _, errors = await asyncio.wait_for(process.communicate(), 15)
    assert process.returncode == 0
    assert b"Traceback" not in errors


async def test_sigterm_before_triton_is_there(serve):
    process = await serve("--triton", f"127.0.0.1:{free_port()}")
    await until_said(process, "listening on")
    process.send_signal(signal.SIGTERM)
    await asyncio.wait_for(process.communicate(), 15)
    assert process.returncode == 0


async def test_a_taken_port_is_one_line(serve, start):
    landseer = await start()
    process = await serve("--listen", landseer.server.address)
    line = await last_line(process)
    assert process.returncode == 1
    expected = f"cannot listen on {landseer.server.address}: Address already in use; choose another with --listen"
    assert line == f"landseer serve: {expected}"


async def test_a_store_in_use_is_one_line(serve, start, config):
    await start()
    process = await serve("--store", str(config.store))
    line = await last_line(process)
    assert process.returncode == 1
    assert line.startswith("landseer serve: ")
    assert "in use" in line


async def test_a_store_of_other_models_is_one_line(serve, start, config, fake_triton):
    first = await start()
    await first.server.stop(0.0)
    fake_triton.profile = dataclasses.replace(PROFILE, weights_sha256="2" * 64)
    process = await serve("--store", str(config.store))
    line = await last_line(process)
    assert process.returncode == 1
    assert line.startswith("landseer serve: ")
    assert "Traceback" not in line


async def test_a_bad_address_gives_one_line(serve):
    process = await serve("--listen", "everywhere")
    assert "HOST:PORT" in await last_line(process)
    assert process.returncode == 1


async def test_a_taken_metrics_port_leaves_nothing_running(start, config):
    first = await start(metrics=f"127.0.0.1:{free_port()}")
    with pytest.raises(OSError, match="--metrics"):
        await start(metrics=f"127.0.0.1:{first.server.metrics_port}", listen=f"127.0.0.1:{free_port()}")


async def test_json_logs_name_requests_but_never_hold_pictures_or_tokens(serve, picture):
    listen = f"127.0.0.1:{free_port()}"
    process = await serve("--listen", listen, "--log-format", "json", "--log-level", "debug")
    lines = [await until_said(process, "index loaded")]
    secret = b"5ecret"
    tiff = b"II*\x00\x08\x00\x00\x00\x01\x00\x0e\x01\x02\x00\x07\x00\x00\x00\x20\x00\x00\x00" + secret * 9
    async with grpc.aio.insecure_channel(listen) as channel:
        stub = search_pb2_grpc.SearchServiceStub(channel)
        for image in (picture(), secret, picture()[:-40] + secret, tiff):
            metadata = [("authorization", "Bearer 5ecret"), ("x-request-id", "mine")]
            with contextlib.suppress(grpc.aio.AioRpcError):
                await stub.Search(search_pb2.SearchRequest(image=image), metadata=metadata)
    process.send_signal(signal.SIGTERM)
    _, errors = await asyncio.wait_for(process.communicate(), 15)
    lines += errors.decode().splitlines()
    records = [json.loads(line) for line in lines]
    ended = [record["message"] for record in records if record.get("request_id") == "mine" and "after" in str(record)]
    assert [message.split(" ")[1].rstrip(":") for message in ended] == ["OK", *["INVALID_ARGUMENT"] * 3]
    assert not [line for line in lines if "5ecret" in line]


async def test_a_fatal_error_is_a_record_of_a_json_log(serve):
    process = await serve("--listen", "everywhere", "--log-format", "json")
    told = json.loads(await last_line(process))
    assert (told["level"], process.returncode) == ("CRITICAL", 1)
    assert "HOST:PORT" in told["message"]
