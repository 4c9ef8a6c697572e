"""TLS on both ports, clients' certificates, and certificates that are replaced while the server runs."""

from __future__ import annotations

import asyncio
import socket
import ssl
import urllib.error
import urllib.request

import grpc
import pytest
from authorities import Authority
from fake_triton import free_port

from landseer.client import Credentials, SearchClient
from landseer.client.errors import ServerUnreachable, UnusableInput
from landseer.ensemble.config import NONE
from landseer.ensemble.security.certificates import Certificates
from landseer.ops.errors import OpsError
from landseer.ops.watch.scrape import fetch


@pytest.fixture(scope="module")
def authority(tmp_path_factory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
async def tls(start, authority, tmp_path):
    """Starts a server with TLS."""
    pair = authority.issue("server")

    async def make(**options):
        return await start(
            tls_cert=pair.cert, tls_key=pair.key, metrics=f"127.0.0.1:{free_port()}", local_features=NONE, **options
        )

    return make


def page(port, authority, client=None):
    context = ssl.create_default_context(cafile=authority.cert)
    if client:
        context.load_cert_chain(client.cert, client.key)
    with urllib.request.urlopen(f"https://127.0.0.1:{port}/metrics", context=context, timeout=5) as answer:
        return answer.read()


def serial(address):
    host, port = address.split(":")
    return ssl.get_server_certificate((host, int(port)))


async def test_a_server_with_tls_answers_those_that_trust_it_and_nobody_else(tls, authority, tmp_path):
    server = (await tls()).server
    async with SearchClient(server.address, credentials=Credentials(tls_ca=authority.cert)) as client:
        assert await client.ready(timeout=5)
        assert (await client.stats()).pictures == 0
    assert b"landseer_serving 1.0" in await asyncio.to_thread(page, server.metrics_port, authority)
    stranger = Authority(tmp_path / "other", "stranger")
    for credentials, told in (
        (Credentials(), "speaks TLS.*--tls-ca"),
        (Credentials(tls_ca=stranger.cert), "certificate.*--tls-ca"),
    ):
        async with SearchClient(server.address, credentials=credentials) as client:
            with pytest.raises(ServerUnreachable, match=told):
                await client.stats(timeout=5)


async def test_clients_must_have_a_certificate_where_the_server_asks_for_one(tls, authority):
    server, ours = (await tls(tls_client_ca=authority.cert)).server, authority.issue("client")
    known = Credentials(tls_ca=authority.cert, tls_cert=ours.cert, tls_key=ours.key)
    async with SearchClient(server.address, credentials=known) as client:
        assert (await client.stats()).pictures == 0
    assert await asyncio.to_thread(page, server.metrics_port, authority, ours)
    async with SearchClient(server.address, credentials=Credentials(tls_ca=authority.cert)) as client:
        with pytest.raises(ServerUnreachable):
            await client.stats(timeout=5)
    with pytest.raises((urllib.error.URLError, ssl.SSLError, ConnectionError)):
        await asyncio.to_thread(page, server.metrics_port, authority)


async def test_a_replaced_certificate_is_used_without_a_restart(tls, authority):
    running = await tls()
    addresses = (running.server.address, f"127.0.0.1:{running.server.metrics_port}")
    before = [await asyncio.to_thread(serial, address) for address in addresses]
    assert before[0] == before[1]
    async with SearchClient(running.server.address, credentials=Credentials(tls_ca=authority.cert)) as old:
        await old.stats()
        config = running.server._config
        broken = config.tls_key.read_bytes()
        config.tls_key.write_bytes(b"half of a k")
        assert [await asyncio.to_thread(serial, address) for address in addresses] == before
        config.tls_key.write_bytes(broken)
        authority.issue("server")
        after = [await asyncio.to_thread(serial, address) for address in addresses]
        assert after[0] == after[1] != before[0]
        await old.stats()  # connections there were go on
    async with SearchClient(running.server.address, credentials=Credentials(tls_ca=authority.cert)) as client:
        await client.stats()


async def test_top_reads_metrics_by_https(tls, authority):
    server = (await tls()).server
    trust, url = Credentials(tls_ca=authority.cert).ssl_context(), f"https://127.0.0.1:{server.metrics_port}/metrics"
    assert (await asyncio.to_thread(fetch, url, trust)).total("landseer_serving") == 1
    with pytest.raises(OpsError, match="CERTIFICATE_VERIFY_FAILED"):
        await asyncio.to_thread(fetch, url)


async def test_a_caller_that_hangs_in_its_handshake_keeps_no_other_from_the_metrics(tls, authority):
    server = (await tls()).server
    with socket.create_connection(("127.0.0.1", server.metrics_port)):
        await asyncio.sleep(0.1)
        assert await asyncio.to_thread(page, server.metrics_port, authority)


def test_files_that_do_not_fit_are_refused_and_named(authority, tmp_path):
    one, other = authority.issue("one"), authority.issue("other")
    with pytest.raises(ValueError, match=r"one\.crt.*key values mismatch.*the key of this certificate"):
        Certificates(one.cert, other.key)
    with pytest.raises(ValueError, match=r"No such file or directory.*gone"):
        Certificates(tmp_path / "gone", other.key)
    with pytest.raises(ValueError, match="expected PEM files"):
        Certificates(one.key, one.key)


def test_credentials_that_do_not_go_together_are_refused(authority, tmp_path):
    pair = authority.issue("client")
    with pytest.raises(UnusableInput, match="needs its key"):
        Credentials(tls_ca=authority.cert, tls_cert=pair.cert)
    with pytest.raises(UnusableInput, match="needs --tls-ca"):
        Credentials(tls_cert=pair.cert, tls_key=pair.key)
    with pytest.raises(UnusableInput, match="no certificate in PEM"):
        Credentials(tls_ca=pair.key).channel_credentials()
    with pytest.raises(UnusableInput, match="cannot read --tls-ca"):
        Credentials(tls_ca=tmp_path / "gone").channel_credentials()
    assert isinstance(Credentials(tls_ca="system").channel_credentials(), grpc.ChannelCredentials)


async def test_a_file_shows_probes_without_a_certificate_whether_it_serves(tls, fake_triton, tmp_path):
    running = await tls(ready_file=tmp_path / "ready")
    assert (tmp_path / "ready").exists()
    fake_triton.ready = False
    for _ in range(100):
        if not (tmp_path / "ready").exists():
            break
        await asyncio.sleep(0.05)
    assert not (tmp_path / "ready").exists()
    fake_triton.ready = True
    await running.server.ready(10)
    assert (tmp_path / "ready").exists()
    await running.server.stop(0.0)
    assert not (tmp_path / "ready").exists()
