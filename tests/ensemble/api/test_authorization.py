"""Tokens: who may call what, how much, and what the audit log says."""

from __future__ import annotations

import json
import logging

import grpc
import pytest
from grpc.aio import AioRpcError
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from landseer.client import Credentials, SearchClient
from landseer.client.errors import Exhausted, InvalidRequest, NotAllowed, NotAuthenticated, UnusableInput
from landseer.client.uploads import Picture
from landseer.ensemble.api import audit, authorization
from landseer.ensemble.api.authorization import NEEDED
from landseer.ensemble.config import NONE
from landseer.ensemble.security import tokens
from landseer.ensemble.security.rates import Rate
from landseer.v1 import index_pb2, search_pb2


@pytest.fixture
async def guarded(start, tmp_path):
    """Starts a server with a token of each role, and returns a client for each. `limits` are those of all tokens."""
    path = tmp_path / "tokens.json"

    async def make(**limits):
        made = {role: tokens.make(f"the-{role}", role, **limits) for role in tokens.ROLES}
        tokens.write(path, tuple(token for token, _ in made.values()))
        running = await start(tokens=path, local_features=NONE)
        for role, (_, secret) in made.items():
            (tmp_path / role).write_text(f"{secret}\n")

        def client(role=None, **options):
            credentials = Credentials(token_file=tmp_path / role) if role else Credentials()
            return SearchClient(running.server.address, credentials=credentials, **options)

        return running, client

    return make


def audited(caplog, verb):
    lines = [record.message for record in caplog.records if record.name == "landseer.audit"]
    return [json.loads(line.partition(" ")[2]) for line in lines if line.startswith(f"{verb} ")]


def test_every_method_of_the_api_has_a_role():
    services = [*search_pb2.DESCRIPTOR.services_by_name.values(), *index_pb2.DESCRIPTOR.services_by_name.values()]
    methods = {f"/{service.full_name}/{method.name}" for service in services for method in service.methods}
    assert methods == set(NEEDED)


async def test_each_role_may_do_its_part_and_health_is_open(guarded, picture):
    _, client = await guarded()
    async with client("write") as writer, client("search") as searcher, client("admin") as admin, client() as nobody:
        await writer.upsert("a", picture(1))
        await writer.upsert_many([Picture(id="b", image=picture(2))])
        for one in (searcher, writer, admin):
            assert [hit.id for hit in (await one.search("a")).hits] == ["b"]
            await one.describe(picture(1))
            await one.get("a")
            await one.stats()
        with pytest.raises(NotAllowed, match="Upsert needs the role write, and token the-search has search"):
            await searcher.upsert("c", picture(3))
        with pytest.raises(NotAllowed, match="UpsertMany needs the role write"):
            await searcher.upsert_many([Picture(id="c", image=picture(3))])
        with pytest.raises(NotAllowed):
            await searcher.delete("a")
        await admin.delete("b")
        assert (await admin.stats()).pictures == 1
        assert await nobody.ready()
        with pytest.raises(NotAuthenticated, match=r"asks for a token, and the call has none.*--token-file"):
            await nobody.stats()
        with pytest.raises(NotAuthenticated):
            await nobody.upsert_many(Picture(id=str(number), image=b"x" * 10**6) for number in range(20))


@pytest.mark.parametrize("given", ["", "Basic abc", "Bearer", "Bearer landseer_wrong", "Bearer " + "x" * 5000])
async def test_anything_but_a_token_is_unauthenticated_with_details(guarded, rich, given):
    running, _ = await guarded()
    with pytest.raises(AioRpcError) as caught:
        await running.index.Stats(index_pb2.StatsRequest(), metadata=[("authorization", given)])
    error = rich(caught.value)
    assert (error.code, error.reason) == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
    assert "landseer_wrong" not in error.message
    counted = {"grpc_service": "landseer.v1.IndexService", "grpc_method": "Stats", "grpc_code": "UNAUTHENTICATED"}
    assert running.metric("grpc_server_handled_total", **counted) == 1


async def test_a_large_request_without_a_token_is_refused_before_it_is_read(guarded):
    running, _ = await guarded()
    with pytest.raises(AioRpcError) as caught:
        await running.search.Search(search_pb2.SearchRequest(image=b"x" * (40 * 2**20)), timeout=10)
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_reflection_needs_an_admin(guarded, tmp_path):
    running, _ = await guarded()
    stub = reflection_pb2_grpc.ServerReflectionStub(running.channel)
    asked = reflection_pb2.ServerReflectionRequest(list_services="")
    for role, refused in ((None, "UNAUTHENTICATED"), ("search", "PERMISSION_DENIED"), ("admin", None)):
        bearer = [("authorization", f"Bearer {(tmp_path / role).read_text().strip()}")] if role else []
        call = stub.ServerReflectionInfo(iter([asked]), metadata=bearer, timeout=5)
        if refused is None:
            assert (await call.read()).list_services_response.service
            continue
        with pytest.raises(AioRpcError) as caught:
            await call.read()
        assert caught.value.code().name == refused


async def test_tokens_change_without_a_restart_on_both_sides(guarded, tmp_path):
    _, client = await guarded()
    token, secret = tokens.make("new", "search")
    async with client("search") as searcher:
        await searcher.stats()
        tokens.write(tmp_path / "tokens.json", (token,))
        with pytest.raises(NotAuthenticated, match="it was removed"):
            await searcher.stats()
        (tmp_path / "search").write_text(secret)
        await searcher.stats()


async def test_a_token_that_used_its_requests_is_refused_with_a_time(guarded):
    _, client = await guarded(requests_per_s=0.1)
    async with client("search") as one, client("write") as other:
        await one.stats()
        with pytest.raises(Exhausted, match=r"token the-search has used its requests per second; try again in"):
            await one.stats()
        await other.stats()  # each token has its own


async def test_a_token_that_used_its_bytes_is_refused_with_a_time(guarded, picture):
    image = picture(1, noise=20.0)
    _, client = await guarded(bytes_per_s=len(image) / 20)
    async with client("search") as searcher:
        await searcher.describe(image)
        with pytest.raises(Exhausted, match="token the-search has used its bytes per second; try again in 1"):
            await searcher.describe(image)


async def test_a_stream_of_a_token_waits_until_it_may_send_more(monkeypatch):
    now, waited = [0.0], []

    async def sleep(seconds):
        waited.append(round(seconds, 1))
        now[0] += seconds + 1e-6

    async def pictures():
        for number in range(4):
            yield index_pb2.UpsertManyRequest(picture=Picture(id=str(number), image=b"x" * 1000))

    monkeypatch.setattr(authorization.asyncio, "sleep", sleep)
    seen = []
    passed = authorization._passed_on(pictures(), Rate(1000.0, lambda: now[0]), seen.append)
    assert len([request async for request in passed]) == len(seen) == 4
    assert waited == [0.0, 1.0]  # two seconds' worth at once, a little more than that here; the rest as it may


async def test_writes_and_refusals_are_audited_and_no_secret_is(guarded, picture, caplog, tmp_path, monkeypatch):
    monkeypatch.setattr(audit, "IDS_A_LINE", 3)
    _, client = await guarded()
    caplog.set_level(logging.DEBUG)
    async with client("write") as writer, client("search") as searcher, client() as nobody:
        await writer.upsert("one", picture(1))
        await writer.upsert_many(Picture(id=f"p{number}", image=picture(2)) for number in range(4))
        await writer.delete("one")
        with pytest.raises(InvalidRequest):
            await writer.upsert("bad", b"no picture")
        with pytest.raises(NotAllowed):
            await searcher.delete("p1")
        with pytest.raises(NotAuthenticated):
            await nobody.search(picture(1))
    writes = audited(caplog, "write")
    assert all(line["token"] == "the-write" and "127.0.0.1" in line["peer"] for line in writes)
    assert [(line["method"].rpartition("/")[2], len(line["ids"]), line["outcome"]) for line in writes] == [
        ("Upsert", 1, "OK"),
        ("UpsertMany", 3, "RUNNING"),
        ("UpsertMany", 1, "OK"),
        ("Delete", 1, "OK"),
        ("Upsert", 1, "INVALID_INPUT"),
    ]
    refused = audited(caplog, "refused")
    assert [(line.get("token"), line["reason"]) for line in refused] == [
        ("the-search", "NOT_PERMITTED"),
        (None, "UNAUTHENTICATED"),
    ]
    secrets = [(tmp_path / role).read_text().strip() for role in tokens.ROLES]
    assert not [secret for secret in secrets if secret in caplog.text]


async def test_strangers_cannot_fill_the_log(guarded, caplog):
    _, client = await guarded()
    async with client() as nobody:
        for _ in range(60):
            with pytest.raises(NotAuthenticated):
                await nobody.stats()
    assert len(audited(caplog, "refused")) < 55


async def test_a_token_does_not_leave_this_machine_in_plain_text(tmp_path):
    (tmp_path / "token").write_text("landseer_x")
    for target in ("search.example:7070", "dns:///search.example:7070", "ipv4:127.0.0.1:1,10.0.0.1:1", "10.0.0.1:1"):
        async with SearchClient(target, credentials=Credentials(token_file=tmp_path / "token")) as client:
            with pytest.raises(UnusableInput, match="in plain text; add --tls-ca, or --insecure"):
                await client.stats(timeout=1)
    (tmp_path / "token").write_text("two words\n")
    async with SearchClient("localhost:1", credentials=Credentials(token_file=tmp_path / "token")) as client:
        with pytest.raises(UnusableInput, match="holds no token"):
            await client.stats()
