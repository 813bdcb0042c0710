"""A client of the gRPC service, for programs that wait (`Client`) and for asyncio (`AsyncClient`).

    from authmilter.client import Client, to_dict, word

    with Client("unix:/run/authmilter/grpc.sock") as client:
        answer = client.verify(raw, client_ip="192.0.2.1", helo="mx.example.com", mail_from="a@example.com")
        print(word(answer.verdict.decision, "disposition"), answer.verdict.decision.because)
        print(to_dict(answer.verdict))  # what `authmilter verify --json` prints

Answers are the messages of authmilter.proto, with their types (`messages` has them all); `to_dict` gives the One JSON, and
`word` an enum's word. The clients do what the published service config asks (`SERVICE_CONFIG`): they wait for a server,
and ask again where one went away; a stream goes on with the next server, and so does an upload of a file that can be
rewound. Every call has a deadline.

How it fails: `CallError`, with a kind for each cause; `InvalidRequestError.violations` names every wrong field.
"""

from __future__ import annotations

from authmilter.remote.blocking import Client
from authmilter.remote.errors import (
    CallError,
    DeadlineExceededError,
    ExhaustedError,
    InvalidRequestError,
    PermissionDeniedError,
    PreconditionError,
    ServerFaultError,
    UnauthenticatedError,
    UnavailableError,
    Violation,
)
from authmilter.remote.requests import (
    About,
    Sender,
    StreamAnswer,
    sign_request,
    to_dict,
    verify_request,
    word,
)
from authmilter.remote.settings import SERVICE_CONFIG, Tls
from authmilter.remote.waiting import AsyncClient
from authmilter.rpc._pb import authmilter_pb2 as messages

__all__ = [
    "SERVICE_CONFIG",
    "About",
    "AsyncClient",
    "CallError",
    "Client",
    "DeadlineExceededError",
    "ExhaustedError",
    "InvalidRequestError",
    "PermissionDeniedError",
    "PreconditionError",
    "Sender",
    "ServerFaultError",
    "StreamAnswer",
    "Tls",
    "UnauthenticatedError",
    "UnavailableError",
    "Violation",
    "messages",
    "sign_request",
    "to_dict",
    "verify_request",
    "word",
]
