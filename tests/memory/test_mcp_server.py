from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from looper.memory.client import ResearchFSClient
from tests.memory.bundled_train import TRAIN, with_method

pytest.importorskip("mcp.server.mcpserver", reason="needs mcp 2")
mcp = pytest.importorskip("mcp")
anyio = pytest.importorskip("anyio")

COMMAND = [sys.executable, "-m", "looper.cli", "memory", "serve"]
PATHS = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
TOOLS = {
    "suggest",
    "propose",
    "log_result",
    "search",
    "method",
    "why",
    "stats",
    "ingest",
    "import_log",
    "log",
    "check",
    "export",
}
WHERE = {"campaign": "c", "scope": "cpu", "budget_kind": "tokens", "budget": 1000}


async def campaign(client) -> None:
    """A whole round over the wire."""
    tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert set(tools) == TOOLS and all(tool.description for tool in tools.values())
    assert tools["suggest"].input_schema["required"] == ["goal", "code"]
    assert tools["log_result"].input_schema["properties"]["status"]

    async def call(name: str, **arguments):
        result = await client.call_tool(name, arguments)
        assert not result.is_error, result.content
        return result.structured_content

    for seed, metric in ((1, 2.50), (2, 2.501)):
        logged = await call("log_result", code_after=TRAIN, metric=metric, seed=seed, **WHERE)
        assert logged["verdict"] is None
    advice = await call("suggest", goal="improve validation bpb", code=TRAIN, scope="cpu", campaign="c")
    assert advice["methods"] and advice["tokens"]["brief"] > 0 and "# Experiment brief" in advice["brief"]
    change = {"code_before": TRAIN, "code_after": with_method("swiglu"), **WHERE}
    assert (await call("propose", **change, seed=1))["ruling"] == "allow"
    logged = await call("log_result", **change, seed=1, metric=2.45, retrieval=advice["retrieval"])
    assert logged["verdict"]["decision"] == "keep" and logged["experiment"]["methods"] == {"swiglu": "present"}
    assert "verdict: keep" in (await call("why", experiment=logged["experiment"]["id"]))["result"]
    assert (await call("stats"))["counts"]["outcome"] == 3
    rows = (await call("log", campaign="c", limit=1))["result"]
    assert [row["experiment"] for row in rows] == [logged["experiment"]["id"]]
    assert (await call("check"))["result"] == []
    assert (await call("export", campaign="c"))["result"].count("\n") == 4
    unknown = await client.call_tool("log", {"campaign": "d"})
    assert unknown.is_error and "no campaign 'd'" in unknown.content[0].text and "'c'" in unknown.content[0].text
    assert (await call("search", text="squared relu"))["methods"][0]["method"] == "relu_squared"
    assert (await call("method", id="swiglu"))["recipe"]
    wrong = await client.call_tool("method", {"id": "swigloo"})
    assert wrong.is_error and "no method 'swigloo'" in wrong.content[0].text
    unfinished = await client.call_tool("log_result", {"code_after": TRAIN})
    assert unfinished.is_error and "give a number" in unfinished.content[0].text
    refused = await client.call_tool("log_result", {**change, "status": "crash", "decision": "keep"})
    assert refused.is_error and "decide crash or discard" in refused.content[0].text
    negative = await client.call_tool("log_result", {"code_after": TRAIN, "metric": 2.5, "cost": -1})
    assert negative.is_error
    assert (await call("stats"))["counts"]["experiment"] == 3


def test_an_agent_works_with_the_memory_over_standard_input(tmp_path: Path) -> None:
    file = tmp_path / "memory.db"
    server = mcp.StdioServerParameters(command=COMMAND[0], args=[*COMMAND[1:], "--db", str(file)], env=PATHS)
    within(lambda: talk(server))
    with ResearchFSClient(file, read_only=True) as client:
        assert [row.metric for row in client.log()] == [2.50, 2.501, 2.45]


def test_an_agent_works_with_the_memory_over_http_on_this_machine(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [*COMMAND, "--db", str(tmp_path / "memory.db"), "--http", "--port", str(port)]
    process = subprocess.Popen(words, env={**os.environ, **PATHS}, stderr=subprocess.PIPE)
    try:
        _wait_for(port, process)
        within(lambda: talk(f"http://127.0.0.1:{port}/mcp"))
        with socket.socket() as other, pytest.raises(OSError):
            other.connect((_own_address(), port))
    finally:
        process.terminate()
        process.communicate()


async def talk(server: object) -> None:
    async with mcp.Client(server) as client:
        await campaign(client)


def within(work: Callable[[], Awaitable[None]]) -> None:
    anyio.run(work)


def _own_address() -> str:
    """An address of this machine that is not 127.0.0.1, yet reaches it."""
    return "127.0.0.2"


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if process.poll() is not None:
                raise AssertionError(process.communicate()[1].decode()) from None
            time.sleep(0.05)
