"""Logging in: passwords are guessed slowly by all clients together, and a link works once."""

import asyncio

import pytest
from starlette.testclient import TestClient

from llmctl.explorer.access.login import GuessLimits, Login, TooManyGuesses, make_token

PASSWORD = "a long password"
QUICK = GuessLimits(delay_s=0.0, waiting=4, per_minute=6)


class Clock:
    seconds = 0.0

    def __call__(self):
        return self.seconds


async def guess_all(login, guesses):
    """What each of many guesses at the same time gets: True, False or "refused"."""

    async def guess(given):
        try:
            return await login.is_password(given)
        except TooManyGuesses:
            return "refused"

    return await asyncio.gather(*map(guess, guesses))


def test_only_the_password_is_right():
    login = Login(PASSWORD, limits=QUICK)
    assert asyncio.run(guess_all(login, [PASSWORD, PASSWORD + "x", "", "\ud800"])) == [
        True,
        False,
        False,
        False,
    ]


def test_a_guess_among_3000_is_mostly_refused_without_being_looked_at():
    login = Login(PASSWORD, limits=QUICK)
    found = asyncio.run(guess_all(login, [f"guess {n}" for n in range(3000)]))
    assert found.count(False) == QUICK.waiting and found.count("refused") == 3000 - QUICK.waiting


def test_the_right_password_waits_its_turn_like_every_guess():
    """Else the first answer that comes quickly is the password."""
    login, order = Login(PASSWORD, limits=QUICK), []

    async def guess(given):
        await login.is_password(given)
        order.append(given)

    async def guess_three():
        await asyncio.gather(*map(guess, ["wrong", "bad", PASSWORD]))

    asyncio.run(guess_three())
    assert order == ["wrong", "bad", PASSWORD]


def test_after_so_many_wrong_ones_none_is_looked_at_until_the_minute_is_over():
    clock = Clock()
    login = Login(PASSWORD, limits=QUICK, now=clock)
    for _ in range(QUICK.per_minute):
        assert asyncio.run(guess_all(login, ["wrong"])) == [False]
    assert asyncio.run(guess_all(login, [PASSWORD])) == ["refused"]
    clock.seconds = 61.0
    assert asyncio.run(guess_all(login, [PASSWORD])) == [True]


def test_a_link_works_once():
    login = Login(PASSWORD, token := make_token())
    assert len(token) > 40 and not login.use_token("") and not login.use_token(token + "x")
    assert login.use_token(token)
    assert not login.use_token(token)
    assert not Login(PASSWORD).use_token("")


def test_a_cookie_of_an_earlier_start_or_a_broken_one_is_not_known():
    login, (name, value) = Login(PASSWORD), Login(PASSWORD).cookie()
    assert (
        not login.is_known(f"{name}={value}")
        and not login.is_known('a="\x00; ;;=')
        and not login.is_known("")
    )
    name, value = login.cookie()
    assert login.is_known(f"other=1; {name}={value}")


@pytest.fixture
def visitor(make_client):
    """A client that knows neither password nor link."""
    return make_client(host="0.0.0.0", password=PASSWORD, token="t" * 43)


def test_the_one_time_link_gives_the_cookie_and_leaves_the_address_without_the_secret(visitor: TestClient):
    visitor.headers.pop("Origin")
    visitor.headers["Sec-Fetch-Site"] = "none"  # as a browser opens a link that was pasted
    assert visitor.head(f"/login?token={'t' * 43}").status_code == 401
    answer = visitor.get(f"/login?token={'t' * 43}", follow_redirects=False)
    assert answer.status_code == 303 and answer.headers["location"] == "/"
    assert "HttpOnly" in answer.headers["set-cookie"]
    assert visitor.get("/api/about").status_code == 200
    visitor.cookies.clear()
    again = visitor.get(f"/login?token={'t' * 43}")
    assert again.status_code == 401 and "spent" in again.text
    assert visitor.get("/api/about").status_code == 401


def test_a_request_before_login_is_small(visitor):
    answer = visitor.post("/login", data={"password": "x" * 60_000})
    assert answer.status_code == 403 and "4,096 bytes" in answer.text
    answer = visitor.post("/api/next", json={"state": "x" * 60_000})
    assert answer.status_code == 403 and "4,096 bytes" in answer.text
    assert visitor.post("/login", data={"password": "\U0001f600" * 256}).status_code == 401


def test_too_many_guesses_are_answered_with_the_way_out(visitor, monkeypatch):
    async def no_sleep(_):
        return None

    monkeypatch.setattr(asyncio, "sleep", no_sleep)
    answers = [visitor.post("/login", data={"password": "wrong"}) for _ in range(30)]
    statuses = [answer.status_code for answer in answers]
    assert statuses == [401] * 20 + [429] * 10
    assert "one-time link" in answers[-1].text and answers[-1].headers["retry-after"] == "60"
