import os

import httpx
import pytest

from looper.errors import MachineError, StoreError
from looper.memory.ingestion.fetching import USER_AGENT, Fetcher, Manners
from tests.memory.ingestion.sources import FakeClock


def times(server):
    return [at for _, at, _ in server.requests]


def test_requests_keep_their_distance_also_between_processes(server, fetcher, tmp_path, clock):
    server.answers = {f"/{n}": [(200, b"x")] for n in range(6)}
    for n in range(3):
        fetcher.get(f"{server.url}/{n}")
    other = Fetcher(cache=tmp_path / "cache", clock=clock)
    for n in range(3, 6):
        other.get(f"{server.url}/{n}")
        clock.time += n / 2
    gaps = [b - a for a, b in zip(times(server), times(server)[1:], strict=False)]
    assert len(gaps) == 5 and min(gaps) >= 3.0 and gaps[0] == 3.0
    assert {headers["User-Agent"] for _, _, headers in server.requests} == {USER_AGENT}


def test_a_clock_that_was_set_back_does_not_stop_everything(server, fetcher, clock):
    server.answers = {"/a": [(200, b"x")], "/b": [(200, b"x")]}
    fetcher.get(f"{server.url}/a")
    clock.time -= 1_000_000
    fetcher.get(f"{server.url}/b")
    assert clock.slept == [3.0]


def test_answers_are_remembered_for_a_day_and_failures_are_not(server, fetcher, clock):
    server.answers = {"/a": [(404, b"no"), (200, b"one"), (200, b"two")]}
    assert fetcher.get(f"{server.url}/a").status == 404
    assert fetcher.get(f"{server.url}/a").body == b"one"
    clock.time += 86_000
    assert fetcher.get(f"{server.url}/a").body == b"one"
    clock.time += 1_000
    assert fetcher.get(f"{server.url}/a").body == b"two"
    assert len(server.requests) == 3


def test_old_answers_are_thrown_away(server, fetcher, tmp_path, clock):
    server.answers = {"/a": [(200, b"x")], "/b": [(200, b"x")]}
    fetcher.get(f"{server.url}/a")
    [old] = (tmp_path / "cache").glob("*.answer")
    clock.time += 2 * 86_400
    os.utime(old, (clock.time - 86_401,) * 2)
    fetcher.get(f"{server.url}/b")
    assert not old.exists() and len(list((tmp_path / "cache").glob("*.answer"))) == 1


@pytest.mark.parametrize("damage", [b"", b"{", b"{}\nbody", b'{"url": 1, "at": "x", "sha": ""}\nx'])
def test_a_damaged_memory_is_fetched_again(server, fetcher, tmp_path, damage):
    server.answers = {"/a": [(200, b"whole\nbody")]}
    fetcher.get(f"{server.url}/a")
    [place] = (tmp_path / "cache").glob("*.answer")
    cut = place.read_bytes()[:-3]
    for data in (damage, cut):
        place.write_bytes(data)
        assert fetcher.get(f"{server.url}/a").body == b"whole\nbody"
    assert len(server.requests) == 3


@pytest.mark.parametrize("status", [429, 503])
def test_overload_is_waited_out_for_ever_longer(server, fetcher, clock, status):
    server.answers = {"/a": [(status, b"")] * 3 + [(200, b"x")]}
    assert fetcher.get(f"{server.url}/a").ok
    gaps = [b - a for a, b in zip(times(server), times(server)[1:], strict=False)]
    assert gaps == [3.0, 6.0, 12.0]


def test_overload_without_end_is_an_error_with_a_bound(server, fetcher):
    server.answers = {"/a": [(503, b"")]}
    with pytest.raises(MachineError, match=r"/a did not answer \(status 503\); 5 times\. Try again later"):
        fetcher.get(f"{server.url}/a")
    assert len(server.requests) == 5


def test_a_server_that_names_a_time_is_given_it_up_to_a_bound(server, fetcher, clock):
    date = "Tue, 14 Nov 2023 22:13:50 GMT"  # 30 seconds after the clock's beginning
    server.answers = {
        "/a": [(429, b"", {"Retry-After": "20"}), (200, b"x")],
        "/b": [(429, b"", {"Retry-After": date}), (200, b"x")],
        "/c": [(429, b"", {"Retry-After": "3600"})],
        "/d": [(429, b"", {"Retry-After": "soon"}), (200, b"x")],
    }
    fetcher.get(f"{server.url}/a")
    assert times(server)[1] - times(server)[0] == 20.0
    clock.time = 1_700_000_000.0
    fetcher.get(f"{server.url}/b")
    assert times(server)[3] - times(server)[2] == 30.0 - (times(server)[2] - 1_700_000_000.0)
    with pytest.raises(MachineError, match="wait 3600 s, more than 120"):
        fetcher.get(f"{server.url}/c")
    assert fetcher.get(f"{server.url}/d").ok


def test_a_dead_server_is_an_error_that_names_it(server, fetcher):
    address = server.url
    server.http.server_close()
    with pytest.raises(MachineError, match=rf"{address}/a did not answer \(ConnectError"):
        fetcher.get(f"{address}/a")


def test_redirections_stay_at_home_and_end(server, fetcher):
    server.answers = {
        "/a": [(302, b"", {"Location": "/b"})],
        "/b": [(200, b"x")],
        "/away": [(302, b"", {"Location": "http://localhost:1/x"})],
        "/round": [(301, b"", {"Location": "/round"})],
    }
    answer = fetcher.get(f"{server.url}/a")
    assert (answer.url, answer.body) == (f"{server.url}/b", b"x")
    assert times(server)[1] - times(server)[0] == 3.0
    with pytest.raises(StoreError, match="redirects to http://localhost:1/x, another host"):
        fetcher.get(f"{server.url}/away")
    with pytest.raises(StoreError, match="more than 5 times"):
        fetcher.get(f"{server.url}/round")


def test_bodies_have_a_bound(server, tmp_path):
    server.answers = {"/a": [(200, b"x" * 1001)]}
    fetcher = Fetcher(cache=tmp_path, clock=FakeClock(), manners=Manners(most_bytes=1000))
    with pytest.raises(StoreError, match="larger than 1,000 bytes"):
        fetcher.get(f"{server.url}/a")


def test_the_transport_can_be_given(tmp_path):
    transport = httpx.MockTransport(lambda request: httpx.Response(200, text=str(request.url)))
    fetcher = Fetcher(cache=tmp_path, clock=FakeClock(), transport=transport)
    assert fetcher.get("https://example.org/api", {"q": "ti:a b"}).body == b"https://example.org/api?q=ti%3Aa+b"


def test_a_cache_that_cannot_be_written_is_named(server, tmp_path):
    (tmp_path / "file").write_text("")
    fetcher = Fetcher(cache=tmp_path / "file" / "arxiv")
    with pytest.raises(MachineError, match=r"file/arxiv cannot be written: .*; set XDG_CACHE_HOME"):
        fetcher.get(f"{server.url}/a")
