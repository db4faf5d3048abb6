"""A Messages API on loopback that is as strict as the real one, and answers from a script.

It speaks HTTP/1.1 over a real socket, so that the real SDK talks to it. A request that the real API would refuse is
refused here: no key, an unknown field at any depth, messages out of order, a tool call that is not answered at once,
a thinking block that comes back changed, a forced tool, sampling parameters, a schema that is not strict, more than
four cache breakpoints. Tokens are counted as characters / 4, and usage follows the rules of the prompt cache: a prefix
(tools, system, messages) is written up to the last breakpoint and read up to the longest prefix already held.

In a test: `async with MessagesApi([propose(...), error(529)]) as api:` and give the SDK `api.url`.
In a rehearsal: `python tests/loop/messages_api.py SCRIPT.json [--port N] [--delay S]` prints its URL and serves until
it is killed. SCRIPT.json is a list of answers, tables with the fields of `Answer`. A request is answered by the first
answer not yet used up whose `experiment` is absent or the one that the last section of the prompt asks for; `times`
says how often an answer serves, 0 for ever. When none is left, the model refuses.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import hashlib
import json
import re
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

BODY_MAX = 32 * 1024 * 1024
BREAKPOINTS_MAX = 4
LOOK_BACK = 20  # blocks before a breakpoint in which an earlier entry is found
TTL_S = {"5m": 300.0, "1h": 3600.0}
VERSIONS = ("2023-06-01", "2026-10-21")
KEY = re.compile(r"sk-(test|ant)-[A-Za-z0-9_-]+")
ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    504: "timeout_error",
    529: "overloaded_error",
}


# ---------------------------------------------------------------- the script


@dataclass(frozen=True)
class Answer:
    """
    One answer. The functions below make the usual ones.

    Attributes:
        experiment: Answers only asks for this one.
        times: How often it serves; 0 for ever.
        tool, input: A tool call; *input* is any JSON. With *raw_input* its JSON text as it is, whole or not.
        also: More tool calls in the same answer, as [name, input].
        text: Text before the tool call, or instead of it.
        thinking: Whether the answer begins with a thinking block.
        stop_reason: Else the one that fits; "" for none at all.
        stop_details: What the vendor says of a refusal.
        status, kind, message, headers: An error instead of an answer.
        html: A page of a proxy, with status 200, instead of an answer.
        drop: The connection is closed without a word.
        delay_s: Seconds before anything is sent.
        pace_s: Seconds between two events.
        cut: The connection breaks after so many events.
        end: The stream ends after so many events, as if it were whole.
        error_event: Type of an error that comes inside the stream, after *error_after* events.
        events: Lines of a stream to send as they are.
        usage: Fields of the usage that replace the ones counted.
        output_tokens: Else counted from the answer.
        model: The model it says it is; else the one asked for.
    """

    experiment: int | None = None
    times: int = 1
    tool: str = ""
    input: Any = None
    raw_input: str | None = None
    also: Sequence[Any] = ()
    text: str = ""
    thinking: bool = True
    stop_reason: str | None = None
    stop_details: dict[str, Any] | None = None
    status: int = 200
    kind: str = ""
    message: str = "no reason"
    headers: dict[str, str] = field(default_factory=dict)
    html: str = ""
    drop: bool = False
    delay_s: float = 0.0
    pace_s: float = 0.0
    cut: int | None = None
    end: int | None = None
    error_event: str = ""
    error_after: int = 4
    events: str = ""
    usage: dict[str, Any] = field(default_factory=dict)
    output_tokens: int | None = None
    model: str = ""


def propose(*edits: dict[str, Any], **fields: Any) -> Answer:
    """A proposal by the schema. An edit is `blocks(path, (search, replace), ...)` or `whole(path, text)`."""
    own = {item.name for item in dataclasses.fields(Answer)}
    said = {
        "rationale": "The last keeps made the step faster.",
        "hypothesis": "A higher rate learns more in the time there is.",
        "expected_effect": {"kind": "change", "amount": 0.003},
        "idea": {"answer": "no_idea", "why": ""},
        "description": "raise the learning rate",
        "edits": list(edits),
        **{name: value for name, value in fields.items() if name not in own},
    }
    return Answer(tool="propose", input=said, **{name: value for name, value in fields.items() if name in own})


def blocks(path: str, *pairs: tuple[str, str]) -> dict[str, Any]:
    return {"path": path, "blocks": [{"search": old, "replace": new} for old, new in pairs], "whole_file": ""}


def whole(path: str, text: str) -> dict[str, Any]:
    return {"path": path, "blocks": [], "whole_file": text}


def read_experiment(number: int, **fields: Any) -> Answer:
    return Answer(tool="read_experiment", input={"experiment": number}, **fields)


def says(text: str, **fields: Any) -> Answer:
    return Answer(text=text, **fields)


def refusal(**fields: Any) -> Answer:
    details = {"type": "refusal", "category": "general_harms", "explanation": "It cannot help with this."}
    return Answer(stop_reason="refusal", stop_details=details, **fields)


def error(status: int, message: str = "no reason", **fields: Any) -> Answer:
    return Answer(status=status, message=message, **fields)


Script = Sequence[Answer] | Callable[["Request"], Answer]


@dataclass(frozen=True)
class Request:
    """A request that was let in: *experiment* is the one it asks for, None if it names none."""

    headers: dict[str, str]
    body: dict[str, Any]
    experiment: int | None


# ---------------------------------------------------------------- what is refused


class Refused(Exception):
    def __init__(self, status: int, message: str, **headers: str) -> None:
        self.status, self.message, self.headers = status, message, headers
        super().__init__(message)


def bad(where: str, problem: str) -> Refused:
    return Refused(400, f"{where}: {problem}")


# The fields of each object of a request: name to type (a type, a tuple of types, or a checker), * for required.
Shape = dict[str, Any]
CACHE: Shape = {"type*": str, "ttl": str}
REQUEST: Shape = {
    "model*": str,
    "max_tokens*": int,
    "messages*": list,
    "system": (str, list),
    "tools": list,
    "tool_choice": dict,
    "output_config": dict,
    "thinking": dict,
    "metadata": dict,
    "stop_sequences": list,
    "service_tier": str,
    "stream": bool,
}
BLOCKS: dict[str, Shape] = {
    "text": {"type*": str, "text*": str, "cache_control": dict},
    "thinking": {"type*": str, "thinking*": str, "signature*": str},
    "tool_use": {"type*": str, "id*": str, "name*": str, "input*": dict, "caller": dict, "cache_control": dict},
    "tool_result": {
        "type*": str,
        "tool_use_id*": str,
        "content": (str, list),
        "is_error": bool,
        "cache_control": dict,
    },
}
ROLES = {"user": {"text", "tool_result"}, "assistant": {"text", "thinking", "tool_use"}}
TOOL: Shape = {
    "name*": str,
    "description": str,
    "input_schema*": dict,
    "strict": bool,
    "type": str,
    "cache_control": dict,
}
SCHEMA_WORDS = {
    "type",
    "description",
    "properties",
    "required",
    "additionalProperties",
    "items",
    "enum",
    "const",
    "anyOf",
}
SAMPLING = ("temperature", "top_p", "top_k")
EFFORTS = ("low", "medium", "high", "xhigh", "max")


def check_shape(value: Any, shape: Shape, where: str) -> None:
    if not isinstance(value, dict):
        raise bad(where, "Input should be an object")
    known = {name.rstrip("*"): kind for name, kind in shape.items()}
    for name, part in value.items():
        if name not in known:
            raise bad(f"{where}.{name}".lstrip("."), "Extra inputs are not permitted")
        wrong_bool = isinstance(part, bool) and known[name] is int
        if not isinstance(part, known[name]) or wrong_bool:
            raise bad(f"{where}.{name}".lstrip("."), "Input is of a wrong type")
    for name in shape:
        if name.endswith("*") and name[:-1] not in value:
            raise bad(f"{where}.{name[:-1]}".lstrip("."), "Field required")


def check(body: Any, issued: dict[str, list[dict[str, Any]]]) -> None:
    """Refuse what the real API would refuse. *issued*: what was answered, by the id of each tool call in it."""
    for name in SAMPLING:
        if isinstance(body, dict) and name in body:
            raise bad(name, "sampling parameters are not supported for this model")
    check_shape(body, REQUEST, "")
    if body["max_tokens"] < 1 or body["max_tokens"] > 128_000:
        raise bad("max_tokens", "must be 1 to 128000")
    thinking = body.get("thinking", {"type": "adaptive"})
    if thinking.get("type") != "adaptive":
        raise bad("thinking", f'"thinking.type.{thinking.get("type")}" is not supported for this model.')
    check_shape(body.get("output_config", {}), {"effort": str}, "output_config")
    if body.get("output_config", {}).get("effort", "low") not in EFFORTS:
        raise bad("output_config.effort", f"must be one of {', '.join(EFFORTS)}")
    check_tools(body)
    check_system(body.get("system", []))
    check_messages(body, issued)
    check_breakpoints(body)


def check_tools(body: dict[str, Any]) -> None:
    names = []
    for number, tool in enumerate(body.get("tools", [])):
        where = f"tools.{number}"
        check_shape(tool, TOOL, where)
        if not re.fullmatch(r"[a-zA-Z0-9_-]{1,128}", tool["name"]):
            raise bad(f"{where}.name", "is no name of a tool")
        names.append(tool["name"])
        if not tool.get("strict"):
            raise bad(f"{where}.strict", "this server takes strict tools only")
        check_schema(tool["input_schema"], f"{where}.input_schema")
    if len(set(names)) < len(names):
        raise bad("tools", "Tool names must be unique.")
    choice = body.get("tool_choice")
    if choice is not None:
        if choice.get("type") in ("any", "tool"):
            raise bad("tool_choice", f"type {choice['type']!r}: forced tool use is not supported for this model")
        check_shape(choice, {"type*": str, "disable_parallel_tool_use": bool}, "tool_choice")
        if choice["type"] not in ("auto", "none") or not names:
            raise bad("tool_choice", "must be auto or none, with tools")


def check_schema(schema: Any, where: str) -> None:
    if not isinstance(schema, dict):
        raise bad(where, "Input should be an object")
    for word in schema:
        if word not in SCHEMA_WORDS:
            raise bad(where, f"for strict tools, the keyword {word!r} is not supported")
    if schema.get("type") == "object":
        if schema.get("additionalProperties") is not False:
            raise bad(where, "for 'object' type, 'additionalProperties' must be false")
        properties = schema.get("properties", {})
        if sorted(schema.get("required", [])) != sorted(properties):
            raise bad(where, "this server wants every property to be required")
        for name, part in properties.items():
            check_schema(part, f"{where}.properties.{name}")
    elif schema.get("type") == "array":
        check_schema(schema.get("items"), f"{where}.items")
    elif schema.get("type") not in ("string", "number", "integer", "boolean", "null"):
        raise bad(where, "has no type")


def check_system(system: Any) -> None:
    for number, block in enumerate(system if isinstance(system, list) else []):
        check_block(block, {"text"}, f"system.{number}")


def check_block(block: Any, allowed: set[str], where: str) -> None:
    kind = block.get("type") if isinstance(block, dict) else None
    if kind not in allowed:
        raise bad(where, f"Input tag {kind!r} does not match any of the expected tags: {', '.join(sorted(allowed))}")
    check_shape(block, BLOCKS[kind], where)
    if kind == "text" and not block["text"].strip():
        raise bad(where, "text content blocks must contain non-whitespace text")
    if kind == "tool_result" and isinstance(block.get("content"), list):
        for number, part in enumerate(block["content"]):
            check_block(part, {"text"}, f"{where}.content.{number}")
    if "cache_control" in block:
        check_shape(block["cache_control"], CACHE, f"{where}.cache_control")
        if block["cache_control"]["type"] != "ephemeral" or block["cache_control"].get("ttl", "5m") not in TTL_S:
            raise bad(f"{where}.cache_control", "must be ephemeral, with ttl 5m or 1h")


def check_messages(body: dict[str, Any], issued: dict[str, list[dict[str, Any]]]) -> None:
    messages = body["messages"]
    if not messages or messages[0].get("role") != "user":
        raise bad("messages", "first message must use the user role")
    if messages[-1].get("role") != "user":
        raise bad("messages", "the conversation must end with a user message; there is no prefill")
    open_calls: list[str] = []
    for number, message in enumerate(messages):
        where = f"messages.{number}"
        check_shape(message, {"role*": str, "content*": (str, list)}, where)
        role, content = message["role"], as_blocks(message["content"])
        if role not in ROLES:
            raise bad(f"{where}.role", "must be user or assistant")
        if number and role == messages[number - 1]["role"]:
            raise bad(f"{where}.role", "this server wants roles to alternate")
        if not content:
            raise bad(f"{where}.content", "must not be empty")
        for at, block in enumerate(content):
            check_block(block, ROLES[role], f"{where}.content.{at}")
        if role == "user":
            check_results(content, open_calls, where)
            open_calls = []
        else:
            check_said(content, issued, where)
            open_calls = [block["id"] for block in content if block["type"] == "tool_use"]


def check_results(content: list[dict[str, Any]], open_calls: list[str], where: str) -> None:
    results = [block["tool_use_id"] for block in content if block["type"] == "tool_result"]
    if missing := [call for call in open_calls if call not in results]:
        raise bad(where, f"`tool_use` ids were found without `tool_result` blocks immediately after: {missing}")
    if len(set(results)) < len(results) or set(results) - set(open_calls):
        raise bad(where, "unexpected `tool_use_id` found in `tool_result` blocks")
    if [block["type"] for block in content[: len(results)]] != ["tool_result"] * len(results):
        raise bad(where, "`tool_result` blocks must come first")


def check_said(content: list[dict[str, Any]], issued: dict[str, list[dict[str, Any]]], where: str) -> None:
    """What the assistant is said to have said must be what it said, thinking and its place included."""
    if content[-1]["type"] == "thinking":
        raise bad(where, "the final block in an assistant message cannot be `thinking`")
    names = [block["id"] for block in content if block["type"] == "tool_use"]
    names += [block["signature"] for block in content if block["type"] == "thinking"]
    for name in names:
        if name not in issued:
            raise bad(where, "Invalid `signature` in `thinking` block, or a tool call that was never made")
    for name in names:
        if [plainly(block) for block in content] != [plainly(block) for block in issued[name]]:
            raise bad(
                where, "`thinking` blocks in the assistant message cannot be modified, nor what stands around them"
            )


def check_breakpoints(body: dict[str, Any]) -> None:
    ttls = [block["cache_control"].get("ttl", "5m") for block in prefix(body) if "cache_control" in block]
    if len(ttls) > BREAKPOINTS_MAX:
        raise Refused(
            400, f"A maximum of {BREAKPOINTS_MAX} blocks with cache_control may be provided. Found {len(ttls)}."
        )
    if ttls != sorted(ttls):  # "1h" before "5m"
        raise Refused(400, "a ttl='1h' cache_control block must not come after a ttl='5m' cache_control block")


def as_blocks(content: Any) -> list[dict[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def plainly(block: dict[str, Any]) -> str:
    return json.dumps({k: v for k, v in block.items() if k != "cache_control"}, sort_keys=True)


def prefix(body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every block of a request in the order of the cache: tools, system, messages."""
    yield from body.get("tools", [])
    yield from as_blocks(body.get("system", []))
    for message in body["messages"]:
        for block in as_blocks(message["content"]):
            yield {**block, "role": message["role"]}


# ---------------------------------------------------------------- usage


class Cache:
    """Which prefixes are held until when, by their hash."""

    def __init__(self, min_tokens: int) -> None:
        self.min_tokens = min_tokens
        self.held: dict[str, float] = {}

    def usage(self, body: dict[str, Any], now: float) -> dict[str, Any]:
        """Count the input of a request, and hold what its breakpoints write."""
        digest, total = hashlib.sha256(body["model"].encode()), 0
        places: list[tuple[str, int, str | None]] = []  # of each block: hash and tokens up to its end, ttl if it breaks
        for block in prefix(body):
            text = plainly(block)
            digest.update(text.encode())
            total += max(1, len(text) // 4)
            ttl = block["cache_control"].get("ttl", "5m") if "cache_control" in block else None
            places.append((digest.hexdigest(), total, ttl))
        breaks = [at for at, place in enumerate(places) if place[2] is not None and place[1] >= self.min_tokens]
        near = {at for end in breaks for at in range(max(0, end - LOOK_BACK), end + 1)}
        read = max((places[at][1] for at in near if self.held.get(places[at][0], 0.0) > now), default=0)
        written = {"5m": 0, "1h": 0}
        upto = read
        for at in breaks:
            name, tokens, ttl = places[at]
            written[str(ttl)] += max(0, tokens - upto)
            upto = max(upto, tokens)
            self.held[name] = now + TTL_S[str(ttl)]
        return {
            "input_tokens": total - upto,
            "cache_creation_input_tokens": sum(written.values()),
            "cache_read_input_tokens": read,
            "cache_creation": {"ephemeral_5m_input_tokens": written["5m"], "ephemeral_1h_input_tokens": written["1h"]},
            "service_tier": "standard",
        }


# ---------------------------------------------------------------- the server


class MessagesApi:
    """
    The server. *script* is a list of `Answer`, used up in order, or a function from the request to one.

    Attributes:
        requests: The requests that were let in, in order.
        refused: Why others were not.
    """

    def __init__(
        self,
        script: Script,
        *,
        port: int = 0,
        delay_s: float = 0.0,
        cache_min_tokens: int = 0,
        keys: set[str] | None = None,
    ) -> None:
        self.script = script
        self.port = port
        self.delay_s = delay_s
        self.keys = keys
        self.cache = Cache(cache_min_tokens)
        self.requests: list[Request] = []
        self.refused: list[str] = []
        self._served: dict[int, int] = {}
        self._issued: dict[str, list[dict[str, Any]]] = {}
        self._number = 0
        self._server: asyncio.Server | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port, limit=2**20)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def none_connected(self, within_s: float = 5.0) -> bool:
        """Wait until every client has gone; whether that came to pass."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), within_s)
        return not self._tasks

    # ------------------------------------------------------------ connections

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection: one request and its answer, or until the client hangs up."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._idle.clear()
        try:
            await self._serve(reader, writer)
            writer.close()
            await writer.wait_closed()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client has gone, or the server is being closed
        finally:
            writer.transport.abort()
            self._tasks.discard(task)
            if not self._tasks:
                self._idle.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = await reader.readline()
        if not line.strip():
            return
        method, path, _ = line.decode("latin-1").split(" ", 2)
        headers = {}
        while head := (await reader.readline()).decode("latin-1").strip():
            name, _, value = head.partition(":")
            headers[name.strip().lower()] = value.strip()
        try:
            request = await self._let_in(method, path, headers, reader)
            usage = self.cache.usage(request.body, time.monotonic())
        except Refused as refused:
            self.refused.append(refused.message)
            await self._send_error(writer, refused.status, "", refused.message, refused.headers)
            return
        self.requests.append(request)
        answer = self._next(request)
        answering = asyncio.ensure_future(self._answer(writer, request, answer, usage))
        gone = asyncio.ensure_future(reader.read(1))  # a client says nothing more, it can only hang up
        try:
            await asyncio.wait({answering, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            answering.cancel()
            gone.cancel()
            ended = await asyncio.gather(answering, gone, return_exceptions=True)
        if isinstance(ended[0], BaseException):
            raise ended[0]

    async def _let_in(self, method: str, path: str, headers: dict[str, str], reader: asyncio.StreamReader) -> Request:
        """Read and check one request. Raises `Refused`."""
        length = headers.get("content-length", "")
        if not length.isdigit():
            raise Refused(400, "no Content-Length")
        if int(length) > BODY_MAX:
            left = int(length)
            while left:  # or the client would not get to read why
                left -= len(await reader.readexactly(min(left, 2**20)))
            raise Refused(413, "Request exceeds the maximum size")
        data = await reader.readexactly(int(length))
        if path.partition("?")[0] != "/v1/messages" or method != "POST":
            raise Refused(404 if method == "POST" else 405, f"{method} {path} is not known")
        # The SDK sends a key as a bearer since its version 2; both are taken.
        key = headers.get("x-api-key") or headers.get("authorization", "").removeprefix("Bearer ")
        if not key:
            raise Refused(401, "x-api-key header is required")
        if not (KEY.fullmatch(key) if self.keys is None else key in self.keys):
            raise Refused(401, "invalid x-api-key")
        if headers.get("anthropic-version") not in VERSIONS:
            raise Refused(400, "anthropic-version: header is required")
        if headers.get("content-type", "").partition(";")[0] != "application/json":
            raise Refused(400, "content-type must be application/json")
        try:
            body = json.loads(data)
        except ValueError as problem:
            raise Refused(400, f"The request body is not valid JSON: {problem}") from None
        check(body, self._issued)
        return Request(headers, body, asked_for(body))

    def _next(self, request: Request) -> Answer:
        if callable(self.script):
            return self.script(request)
        for number, answer in enumerate(self.script):
            served = self._served.get(number, 0)
            if answer.experiment in (None, request.experiment) and (answer.times == 0 or served < answer.times):
                self._served[number] = served + 1
                return answer
        return refusal()

    # ------------------------------------------------------------ answers

    async def _answer(self, writer: asyncio.StreamWriter, request: Request, answer: Answer, usage: Any) -> None:
        await asyncio.sleep(self.delay_s + answer.delay_s)
        if answer.drop:
            writer.transport.abort()
            return
        if answer.html:
            await self._send(writer, 200, "text/html; charset=utf-8", answer.html.encode(), answer.headers)
            return
        if answer.status != 200:
            await self._send_error(writer, answer.status, answer.kind, answer.message, answer.headers)
            return
        message = self._message(request, answer, usage)
        if not request.body.get("stream"):
            await self._send(writer, 200, "application/json", json.dumps(message).encode(), self._about())
            return
        head = {"Content-Type": "text/event-stream; charset=utf-8", "Transfer-Encoding": "chunked"}
        writer.write(head_of(200, {**head, "Connection": "close", **self._about()}))
        if answer.events:
            writer.write(chunk(answer.events.encode()))
        else:
            async for event in self._paced(stream_of(message, answer), answer):
                writer.write(chunk(event))
                await writer.drain()
        if answer.cut is None:
            writer.write(b"0\r\n\r\n")
        await writer.drain()

    async def _paced(self, events: list[bytes], answer: Answer) -> AsyncIterator[bytes]:
        most = min(len(events) if limit is None else limit for limit in (answer.cut, answer.end))
        for number, event in enumerate(events[:most]):
            if answer.error_event and number == answer.error_after:
                yield sse("error", {"type": "error", "error": {"type": answer.error_event, "message": answer.message}})
                return
            yield event
            await asyncio.sleep(answer.pace_s)

    def _message(self, request: Request, answer: Answer, usage: dict[str, Any]) -> dict[str, Any]:
        self._number += 1
        content: list[dict[str, Any]] = []
        if answer.thinking:
            signature = hashlib.sha256(f"thought {self._number}".encode()).hexdigest()
            content.append({"type": "thinking", "thinking": "", "signature": signature})
        if answer.text:
            content.append({"type": "text", "text": answer.text})
        calls = [(answer.tool, answer.input), *answer.also] if answer.tool else []
        for at, (name, data) in enumerate(calls):
            use = {"type": "tool_use", "id": f"toolu_{self._number:04}{at}", "name": name, "input": data}
            content.append({**use, "caller": {"type": "direct"}})
        for block in content:
            self._issued[block.get("id") or block.get("signature", "")] = content
        said = json.dumps(content) if answer.raw_input is None else answer.raw_input
        output = answer.output_tokens if answer.output_tokens is not None else max(1, len(said) // 4)
        fits = "tool_use" if calls else "end_turn"
        return {
            "id": f"msg_{self._number:06}",
            "type": "message",
            "role": "assistant",
            "model": answer.model or request.body["model"],
            "content": content,
            "stop_reason": fits if answer.stop_reason is None else answer.stop_reason or None,
            "stop_sequence": None,
            "stop_details": answer.stop_details,
            "usage": {**usage, "output_tokens": output, **answer.usage},
        }

    def _about(self) -> dict[str, str]:
        return {"request-id": f"req_{self._number:06}"}

    async def _send_error(
        self, writer: asyncio.StreamWriter, status: int, kind: str, message: str, headers: dict[str, str]
    ) -> None:
        self._number += 1
        kind = kind or ERROR_TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
        body = {"type": "error", "error": {"type": kind, "message": message}, "request_id": f"req_{self._number:06}"}
        await self._send(writer, status, "application/json", json.dumps(body).encode(), {**self._about(), **headers})

    async def _send(
        self, writer: asyncio.StreamWriter, status: int, kind: str, body: bytes, headers: dict[str, str]
    ) -> None:
        head = {"Content-Type": kind, "Content-Length": str(len(body)), "Connection": "close", **headers}
        writer.write(head_of(status, head) + body)
        await writer.drain()


def asked_for(body: dict[str, Any]) -> int | None:
    """The experiment that a prompt asks for: it is named in the last section of its first message."""
    last = as_blocks(body["messages"][0]["content"])[-1].get("text", "")
    found = re.findall(r"experiment (\d+)", last)
    return int(found[0]) if found else None


def head_of(status: int, headers: dict[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} Said", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def sse(name: str, data: dict[str, Any]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


def stream_of(message: dict[str, Any], answer: Answer) -> list[bytes]:
    """The events that carry *message*, as the real API cuts it up."""
    begun = {**message, "content": [], "stop_reason": None, "stop_details": None}
    begun["usage"] = {**message["usage"], "output_tokens": 1}
    events: list[dict[str, Any]] = [{"type": "message_start", "message": begun}]
    for index, block in enumerate(message["content"]):
        empty, deltas = pieces_of(block, answer)
        events.append({"type": "content_block_start", "index": index, "content_block": empty})
        if index == 0:
            events.append({"type": "ping"})
        events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        events.append({"type": "content_block_stop", "index": index})
    stop = {name: message[name] for name in ("stop_reason", "stop_sequence", "stop_details")}
    usage = {"output_tokens": message["usage"]["output_tokens"]}
    events += [{"type": "message_delta", "delta": stop, "usage": usage}, {"type": "message_stop"}]
    return [sse(event["type"], event) for event in events]


def pieces_of(block: dict[str, Any], answer: Answer) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    if block["type"] == "thinking":
        return {**block, "signature": ""}, [{"type": "signature_delta", "signature": block["signature"]}]
    if block["type"] == "text":
        return {**block, "text": ""}, [{"type": "text_delta", "text": part} for part in cut_up(block["text"])]
    text = json.dumps(block["input"]) if answer.raw_input is None else answer.raw_input
    deltas = [{"type": "input_json_delta", "partial_json": part} for part in ("", *cut_up(text))]
    return {**block, "input": {}}, deltas


def cut_up(text: str, size: int = 200) -> list[str]:
    return [text[at : at + size] for at in range(0, len(text), size)]


# ---------------------------------------------------------------- from a shell


def script_from(path: Path) -> list[Answer]:
    """Read a script. Raises `ValueError` that names the entry and the field that cannot be read."""
    data = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(data, list):
        raise ValueError(f"{path}: expected a list of answers")
    known = {item.name for item in dataclasses.fields(Answer)}
    for number, entry in enumerate(data):
        if not isinstance(entry, dict) or (strange := sorted(set(entry) - known)):
            raise ValueError(f"{path}: entry {number} is no answer: {strange if isinstance(entry, dict) else entry}")
    return [Answer(**entry) for entry in data]


async def serve(arguments: argparse.Namespace) -> None:
    async with MessagesApi(script_from(arguments.script), port=arguments.port, delay_s=arguments.delay) as api:
        print(api.url, flush=True)
        await asyncio.Event().wait()


def main() -> int:
    parser = argparse.ArgumentParser(description="A Messages API on loopback that answers from a script.")
    parser.add_argument("script", type=Path, help="a JSON list of answers")
    parser.add_argument("--port", type=int, default=0, help="else a free one")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before each answer")
    arguments = parser.parse_args()
    try:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(serve(arguments))
    except (OSError, ValueError) as problem:
        print(problem, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
