"""The calls there are, read from the descriptor of `proto/authmilter/v1/authmilter.proto`: for the server and clients.

METHODS["VerifierService"]["Verify"].path == "/authmilter.v1.VerifierService/Verify"
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from authmilter.rpc._pb import authmilter_pb2 as pb

__all__ = ["METHOD", "METHODS", "SERVICES", "RpcMethod"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RpcMethod:
    """One call: its path, the classes of its messages, and which side sends a stream of them."""

    service: str
    name: str
    path: str
    request: type[Message]
    response: type[Message]
    client_streaming: bool
    server_streaming: bool

    @property
    def read_request(self) -> Callable[[bytes], Any]:
        """Makes a request of its octets."""
        return self.request.FromString

    @property
    def read_response(self) -> Callable[[bytes], Any]:
        """Makes a response of its octets."""
        return self.response.FromString


def _method(service: str, method: MethodDescriptor) -> RpcMethod:
    return RpcMethod(
        service=service,
        name=method.name,
        path=f"/{service}/{method.name}",
        request=GetMessageClass(method.input_type),
        response=GetMessageClass(method.output_type),
        client_streaming=method.client_streaming,
        server_streaming=method.server_streaming,
    )


#: Service -> call -> what it is.
METHODS: Mapping[str, Mapping[str, RpcMethod]] = {
    name: {m.name: _method(service.full_name, m) for m in service.methods}
    for name, service in pb.DESCRIPTOR.services_by_name.items()
}
#: The full names of the services.
SERVICES = tuple(service.full_name for service in pb.DESCRIPTOR.services_by_name.values())
#: The same by the call's name alone, which is its own.
METHOD: Mapping[str, RpcMethod] = {name: m for methods in METHODS.values() for name, m in methods.items()}
