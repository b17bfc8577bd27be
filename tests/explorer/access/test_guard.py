"""Who is refused, and what every answer carries."""

from pathlib import Path

import pytest
from starlette.websockets import WebSocketDisconnect

from llmctl.errors import UserError
from llmctl.explorer.access.guard import is_loopback
from llmctl.explorer.limits import Limits
from llmctl.explorer.server import ServerSettings, listen

PASSWORD = "a long password"


def test_every_answer_forbids_foreign_content(client):
    for path in ("/", "/static/app.js", "/api/about", "/nowhere"):
        headers = client.get(path).headers
        assert "default-src 'self'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
    assert client.get("/api/about").headers["cache-control"] == "no-store"


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "evil.example:80"])
def test_a_foreign_host_name_is_refused(client, host):
    assert client.get("/api/about", headers={"Host": host}).status_code == 403


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:7860", "[::1]:7860"])
def test_the_names_of_this_machine_are_answered(client, host):
    assert client.get("/api/about", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({"Origin": "http://evil.example"}, "other sites"),
        ({"Origin": "http://127.0.0.1:9999"}, "other sites"),
        ({"Origin": "null"}, "other sites"),
        ({"Sec-Fetch-Site": "cross-site"}, "other sites"),
        ({"Content-Type": "text/plain"}, "must be application/json"),
    ],
)
def test_a_request_that_another_site_could_send_is_refused(client, problem, headers, reason):
    answer = client.post("/api/next", json=problem, headers=headers)
    assert answer.status_code == 403 and reason in answer.text


def test_a_request_that_is_too_long_is_refused(client, problem):
    answer = client.post("/api/next", json={**problem, "state": "x" * 70_000})
    assert answer.status_code == 403 and "65,536 bytes" in answer.text


@pytest.mark.parametrize("origin", ["http://evil.example", "null", None])
def test_a_socket_of_another_site_is_refused(make_client, origin):
    client = make_client()
    client.headers.pop("Origin")
    headers = {} if origin is None else {"Origin": origin}
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/api/session", headers=headers):
        pass


def test_a_password_guards_page_answers_and_socket(make_client, monkeypatch):
    import asyncio

    async def no_sleep(_):
        return None

    monkeypatch.setattr(asyncio, "sleep", no_sleep)
    client = make_client(host="0.0.0.0", password=PASSWORD)
    assert client.get("/").status_code == 401
    assert "password" in client.get("/").text
    assert client.get("/api/about").status_code == 401
    assert client.get("/static/app.js").status_code == 401
    assert client.get("/static/style.css").status_code == 200
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/api/session"):
        pass
    assert client.post("/login", data={"password": "wrong password"}).status_code == 401
    assert client.get("/api/about", cookies={"llmctl-explorer": "0" * 64}).status_code == 401
    client.cookies.clear()
    answer = client.post("/login", data={"password": PASSWORD}, follow_redirects=False)
    assert answer.status_code == 303 and "HttpOnly" in answer.headers["set-cookie"]
    assert client.get("/api/about").status_code == 200
    cookie = f"llmctl-explorer={client.cookies['llmctl-explorer']}"
    with client.websocket_connect("/api/session", headers={"Cookie": cookie}):
        pass


def test_other_hosts_than_this_machine_need_a_password():
    with pytest.raises(UserError, match="there is no password"):
        ServerSettings(host="0.0.0.0")
    with pytest.raises(UserError, match="8 are needed"):
        ServerSettings(host="0.0.0.0", password="short")
    with pytest.raises(UserError, match="256 are allowed"):
        ServerSettings(password="x" * 257)
    assert ServerSettings().password is None


def test_other_hosts_than_this_machine_need_a_certificate_or_an_explicit_word():
    with pytest.raises(
        UserError, match="plain HTTP would show them the password.*--certfile.*--insecure-http"
    ):
        ServerSettings(host="0.0.0.0", password=PASSWORD)
    with pytest.raises(UserError, match="--keyfile is given without --certfile"):
        ServerSettings(keyfile=Path("key.pem"))
    assert ServerSettings(host="0.0.0.0", password=PASSWORD, insecure_http=True).insecure_http
    assert ServerSettings(host="0.0.0.0", password=PASSWORD, certfile=Path("a.pem")).certfile
    with pytest.raises(UserError, match="there is no password"):
        ServerSettings(host="0.0.0.0", certfile=Path("a.pem"))


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.1.2.3", True), ("::1", True), ("localhost", True), ("0.0.0.0", False),
     ("192.168.1.5", False), ("example.org", False), ("127.0.0.1.example.org", False)],
)  # fmt: skip
def test_what_is_this_machine_alone(host, expected):
    assert is_loopback(host) is expected


def test_a_port_that_is_taken_is_one_line():
    with listen("127.0.0.1", 0) as taken:
        taken.listen()
        with pytest.raises(UserError, match="choose another --port"):
            listen("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(UserError, match="cannot listen on"):
        listen("127.0.0.1", 70_000)


def test_limits_are_at_least_one():
    with pytest.raises(UserError, match="limit k is 0"):
        Limits(k=0)


def test_too_many_tabs_are_refused_and_a_closed_one_makes_room(make_client):
    with make_client(Limits(tabs=1)) as client:
        with client.websocket_connect("/api/session"):
            with pytest.raises(WebSocketDisconnect), client.websocket_connect("/api/session"):
                pass
        with client.websocket_connect("/api/session"):
            pass
