"""The Open Inference Protocol, version 2, over HTTP, with binary tensors: what the clients of Triton, KServe and MLServer speak."""

import base64
import binascii
import json
import math
import struct
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from bodies import MOST_IMAGES, call_of
from numpy.typing import NDArray
from problems import Problem, invalid
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

Value = list[bytes] | NDArray[np.float32]
_LENGTH_HEADER = "inference-header-content-length"
_BYTES, _FP32 = "BYTES", "FP32"


@dataclass(frozen=True, slots=True)
class Port:
    """One input or output: its name, `BYTES` or `FP32`, and its shape with -1 for any length."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    def told(self) -> dict[str, Any]:
        """As the model's description names it."""
        return {"name": self.name, "datatype": self.datatype, "shape": list(self.shape)}


class Served(Protocol):
    """What a model offers to this protocol."""

    inputs: Sequence[Port]
    outputs: Sequence[Port]

    async def infer(self, inputs: Mapping[str, Value]) -> Mapping[str, NDArray[np.float32]]:
        """The outputs for these inputs, of which there is at least one.

        Raises:
            Problem: An input is not what it should be.
        """


def routes(name: str, platform: str, ready: Callable[[], bool], model: Callable[[], Awaitable[Served]]) -> list[Route]:
    """The routes for one model.

    Args:
        ready: Whether the model can answer.
        model: The model; raises `Problem` while it cannot.
    """

    async def live(request: Request) -> Response:
        del request
        return JSONResponse({"live": True})

    async def server(request: Request) -> Response:
        del request
        return JSONResponse({"name": "modelyard", "version": "2", "extensions": ["binary_tensor_data"]})

    async def readiness(request: Request) -> Response:
        _check_name(request)
        return JSONResponse({"name": name, "ready": ready()}, 200 if ready() else 503)

    async def described(request: Request) -> Response:
        _check_name(request)
        served = await model()
        ports = {"inputs": [each.told() for each in served.inputs], "outputs": [each.told() for each in served.outputs]}
        return JSONResponse({"name": name, "versions": ["1"], "platform": platform} | ports)

    async def infer(request: Request) -> Response:
        _check_name(request)
        async with call_of(request) as content:
            served = await model()
            asked, binary = _parted(content, request.headers.get(_LENGTH_HEADER))
            outputs = await served.infer(_inputs(asked, binary, served))
        return _answer(name, asked, outputs)

    def _check_name(request: Request) -> None:
        wanted = request.path_params.get("name", name)
        if wanted != name:
            raise Problem(404, "no_such_model", f"There is no model {wanted[:60]!r} here.", f"Ask for {name}.")

    found = {
        "/v2": server,
        "/v2/health/live": live,
        "/v2/health/ready": readiness,
        "/v2/models/{name}": described,
        "/v2/models/{name}/ready": readiness,
    }
    return [*(Route(path, _told(get)) for path, get in found.items()), Route("/v2/models/{name}/infer", _told(infer), methods=["POST"])]


def _told(endpoint: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """The endpoint, whose problems have the member `error` that clients of this protocol look for."""

    async def answered(request: Request) -> Response:
        try:
            return await endpoint(request)
        except Problem as problem:
            return JSONResponse(problem.document() | {"error": f"{problem.detail} {problem.mend}"}, problem.status)

    answered.__name__ = f"v2_{endpoint.__name__}"
    return answered


def _parted(content: bytes, header_length: str | None) -> tuple[dict[str, Any], bytes]:
    """The JSON part, and the tensors behind it."""
    end = int(header_length) if header_length and header_length.isascii() and header_length.isdigit() else len(content)
    try:
        asked = json.loads(content[:end])
    except (ValueError, RecursionError) as error:
        raise Problem(400, "json_unreadable", "The inference request is not JSON.", "Send what the protocol describes.") from error
    if not isinstance(asked, dict) or not isinstance(asked.get("inputs"), list) or not asked["inputs"]:
        raise invalid("inputs", "must be a list of tensors")
    return asked, content[end:]


def _inputs(asked: dict[str, Any], binary: bytes, served: Served) -> dict[str, Value]:
    known = {port.name: port for port in served.inputs}
    found: dict[str, Value] = {}
    for told in asked["inputs"]:
        port = known.get(told.get("name")) if isinstance(told, dict) and isinstance(told.get("name"), str) else None
        if port is None or told.get("datatype") != port.datatype:
            raise invalid("inputs", f"may be {', '.join(f'{each.name} ({each.datatype})' for each in served.inputs)}")
        shape = _shape(told.get("shape"), port)
        parameters = told.get("parameters")
        size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
        if size is None:
            found[port.name] = _from_json(told.get("data"), port, shape)
            continue
        if type(size) is not int or not 0 <= size <= len(binary):
            raise invalid(port.name, "has a binary_data_size that does not fit the body")
        found[port.name] = _from_binary(binary[:size], port, shape)
        binary = binary[size:]
    return found


def _shape(told: Any, port: Port) -> tuple[int, ...]:
    whole = isinstance(told, list) and all(type(each) is int and each > 0 for each in told)
    if not whole or len(told) != len(port.shape) or any(b not in {-1, a} for a, b in zip(told, port.shape, strict=True)):
        raise invalid(port.name, f"must have the shape {list(port.shape)}")
    if told[0] > MOST_IMAGES:
        raise invalid(port.name, f"has more than {MOST_IMAGES} entries")
    return tuple(told)


def _from_json(content: Any, port: Port, shape: tuple[int, ...]) -> Value:
    try:
        if port.datatype == _FP32:
            return np.asarray(content, np.float32).reshape(shape)
        texts = [content] if isinstance(content, str) else list(content)
        if len(texts) != math.prod(shape) or not all(isinstance(each, str) for each in texts):
            raise ValueError("count")  # noqa: TRY301 - one answer for all that does not fit
        return [_unpacked(each, port) for each in texts]
    except (ValueError, TypeError, OverflowError, binascii.Error) as error:
        raise invalid(port.name, "has data that does not fit its shape and type") from error


def _unpacked(text: str, port: Port) -> bytes:
    # JSON carries no bytes: what is no text stands there in base64.
    return text.encode() if port.name == "text" else base64.b64decode(text, validate=True)


def _from_binary(content: bytes, port: Port, shape: tuple[int, ...]) -> Value:
    count = math.prod(shape)
    if port.datatype == _FP32:
        if len(content) != count * 4:
            raise invalid(port.name, f"has {len(content)} bytes; its shape takes {count * 4}")
        return np.frombuffer(content, "<f4").reshape(shape).astype(np.float32)
    found, at = [], 0
    while at + 4 <= len(content) and len(found) < count:
        (length,) = struct.unpack_from("<I", content, at)
        found.append(content[at + 4 : at + 4 + length])
        at += 4 + length
    if at != len(content) or len(found) != count:
        raise invalid(port.name, "has bytes that are not its elements, each behind its length")
    return found


def _answer(name: str, asked: dict[str, Any], outputs: Mapping[str, NDArray[np.float32]]) -> Response:
    wanted = _wanted(asked, outputs)
    described, tensors = [], []
    for output, binary in wanted.items():
        array = np.ascontiguousarray(outputs[output], "<f4")
        told: dict[str, Any] = {"name": output, "datatype": _FP32, "shape": list(array.shape)}
        if binary:
            tensors.append(array.tobytes())
            described.append(told | {"parameters": {"binary_data_size": array.nbytes}})
        else:
            described.append(told | {"data": array.ravel().tolist()})
    answer = {"model_name": name, "model_version": "1", "outputs": described}
    if isinstance(asked.get("id"), str):
        answer["id"] = asked["id"]
    if not tensors:
        return JSONResponse(answer)
    head = json.dumps(answer).encode()
    headers = {_LENGTH_HEADER: str(len(head))}
    return Response(b"".join([head, *tensors]), headers=headers, media_type="application/octet-stream")


def _wanted(asked: dict[str, Any], outputs: Mapping[str, NDArray[np.float32]]) -> dict[str, bool]:
    """The outputs to send, and of each whether as binary."""
    parameters = asked.get("parameters")
    all_binary = bool(parameters.get("binary_data_output")) if isinstance(parameters, dict) else False
    told = asked.get("outputs")
    if not told:
        return dict.fromkeys(outputs, all_binary)
    wanted = {}
    for each in told if isinstance(told, list) else [None]:
        name = each.get("name") if isinstance(each, dict) else None
        if not isinstance(name, str) or name not in outputs:
            raise invalid("outputs", f"may be {', '.join(outputs)} for these inputs")
        own = each.get("parameters")
        wanted[name] = bool(own.get("binary_data", all_binary)) if isinstance(own, dict) else all_binary
    return wanted
