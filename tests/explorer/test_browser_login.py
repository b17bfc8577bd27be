"""Logging in with a real browser: the password is typed, the link is opened, and no header is set by hand."""

import pytest
from playwright.sync_api import expect

from .conftest import Tab, serve

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
PASSWORD = "a long password"


@pytest.fixture(scope="module")
def guarded(runs, tiny_model):
    """The address of an explorer with a password, and its one-time link."""
    process, address = serve(runs, "--model", str(tiny_model), "--password", PASSWORD)
    link = process.stdout.readline().split()[2]
    try:
        yield address, link
    finally:
        process.terminate()
        process.wait(120)


@pytest.fixture
def tab(browser, guarded):
    """A tab of a visitor who is not known yet."""
    tab = Tab(browser, guarded[0])
    yield tab
    tab.context.close()


def log_in(page, password):
    page.get_by_label("Password").fill("")
    page.keyboard.type(password)
    page.keyboard.press("Enter")


def test_the_password_is_typed_and_the_page_with_its_socket_opens(tab):
    page = tab.open()
    tab.shoot("login")
    log_in(page, "a wrong password")
    expect(page.locator(".error")).to_have_text("That is not the password.")
    log_in(page, PASSWORD)
    page.wait_for_selector(".bars button")
    assert page.url.startswith(f"{tab.server}/") and "login" not in page.url
    page.locator("nav a[data-view=set]").click()
    page.locator("#explore").click()  # over the socket, which needs the cookie too
    expect(page.locator("#set-state")).not_to_have_text("")
    page.reload()
    page.wait_for_selector("#explore")
    assert tab.foreign == []


def test_the_one_time_link_opens_the_page_once(tab, guarded, browser):
    _, link = guarded
    tab.page.goto(link)
    tab.page.wait_for_selector(".bars button")
    assert "token" not in tab.page.url
    assert tab.page.evaluate("() => document.referrer").find("token") == -1
    assert tab.errors == []
    other = Tab(browser, tab.server)
    other.page.goto(link)
    expect(other.page.locator(".error")).to_contain_text("This link is spent or wrong")
    expect(other.page.get_by_label("Password")).to_be_visible()
    other.context.close()
