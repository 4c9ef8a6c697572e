"""The relay passes calls and answers, and cancels no inference whatever its callers do."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from fake_triton import FakeTriton, free_port
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from landseer.client import keepalive
from landseer.ensemble.inference.contracts import RELAYED
from landseer.ops.run import relay

PICTURE = bytes(64 * 64 * 3)


@pytest.fixture
async def triton():
    running = await FakeTriton(release="2.51.0").start()
    yield running
    await running.stop()


@pytest.fixture
async def channel(triton):
    """To the relay before it."""
    address, listening, stop = f"127.0.0.1:{free_port()}", asyncio.Event(), asyncio.Event()
    serving = asyncio.create_task(relay.serve(address, triton.address, listening.set, stop))
    await listening.wait()
    async with grpc.aio.insecure_channel(address) as channel:
        yield channel
    stop.set()
    await serving


@pytest.fixture
def stub(channel):
    return service_pb2_grpc.GRPCInferenceServiceStub(channel)


def inference(**more):
    image = service_pb2.ModelInferRequest.InferInputTensor(name="image", datatype="UINT8", shape=[1, 64, 64, 3])
    wanted = service_pb2.ModelInferRequest.InferRequestedOutputTensor(name="descriptor")
    return service_pb2.ModelInferRequest(
        model_name="describe", inputs=[image], outputs=[wanted], raw_input_contents=[PICTURE], **more
    )


async def until(condition):
    async def wait():
        while not condition():
            await asyncio.sleep(0.01)

    await asyncio.wait_for(wait(), 10)


async def test_calls_headers_answers_and_errors_pass(triton, stub):
    answer = await stub.ModelInfer(inference(), metadata=(("traceparent", "00-1-2-01"),))
    assert answer.outputs[0].name == "descriptor" and len(answer.raw_output_contents) == 1
    assert triton.calls[0].traceparent == "00-1-2-01"
    assert (await stub.ModelReady(service_pb2.ModelReadyRequest(name="describe"))).ready
    triton.failures["describe"] = (grpc.StatusCode.INVALID_ARGUMENT, "no such size")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.ModelInfer(inference())
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.INVALID_ARGUMENT, "no such size")


async def test_kubernetes_hears_whether_triton_is_ready(triton, channel):
    health, states = health_pb2_grpc.HealthStub(channel), health_pb2.HealthCheckResponse
    for triton.ready in (True, False):
        answer = await health.Check(health_pb2.HealthCheckRequest())
        assert answer.status == (states.SERVING if triton.ready else states.NOT_SERVING)


async def test_it_says_that_it_is_there(stub):
    found = await stub.ServerMetadata(service_pb2.ServerMetadataRequest())
    assert (found.version, list(found.extensions)) == ("2.51.0", [RELAYED])


async def test_orchestrators_that_ping_while_triton_hangs_are_not_cut_off(triton, monkeypatch):
    monkeypatch.setattr(keepalive, "SHORTEST_PAUSE_MS", 500)
    accepted = keepalive.server_options()
    monkeypatch.setattr(keepalive, "server_options", lambda: (*accepted, ("grpc.http2.max_ping_strikes", 1)))
    monkeypatch.setattr(keepalive, "TIME_MS", 300)
    triton.delays["describe"] = 4.5
    address, listening, stop = f"127.0.0.1:{free_port()}", asyncio.Event(), asyncio.Event()
    serving = asyncio.create_task(relay.serve(address, triton.address, listening.set, stop))
    await listening.wait()
    async with grpc.aio.insecure_channel(address, options=keepalive.client_options()) as channel:
        # gRPC pings once a second at most, and now allows one that comes too soon.
        answer = await service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(inference())
        assert answer.outputs[0].name == "descriptor"
    stop.set()
    await serving


@pytest.mark.parametrize("how", ["cancelled", "deadline"])
async def test_an_inference_goes_on_without_its_caller(triton, stub, how):
    gate = triton.gates["describe"] = asyncio.Event()
    call = stub.ModelInfer(inference(), timeout=1.0 if how == "deadline" else None)
    await until(lambda: len(triton.calls) == 1)
    assert triton.calls[0].time_remaining is None, "a deadline that passes would cancel"
    if how == "cancelled":
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    else:
        with pytest.raises(grpc.aio.AioRpcError):
            await call
    gate.set()
    await until(lambda: triton.ended == ["describe"])
    assert triton.cancelled == []


async def test_abandoned_inferences_are_bounded(triton, stub, monkeypatch):
    monkeypatch.setattr(relay, "MOST", 1)
    gate = triton.gates["describe"] = asyncio.Event()
    first = stub.ModelInfer(inference())
    await until(lambda: len(triton.calls) == 1)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.ModelInfer(inference())
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    gate.set()
    assert (await first).outputs


async def test_what_would_change_the_server_does_not_pass(stub):
    for call, request in (
        (stub.RepositoryModelUnload, service_pb2.RepositoryModelUnloadRequest(model_name="backbone")),
        (stub.SystemSharedMemoryRegister, service_pb2.SystemSharedMemoryRegisterRequest(name="x", key="/x")),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(request)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_without_a_triton_it_fails_at_once(triton, stub):
    await triton.stop()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asyncio.wait_for(stub.ModelInfer(inference()), 5)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
