"""The page in a real browser, on the embedded model: what a person sees and does."""

import json
import re
import shutil

import pytest
from playwright.sync_api import expect

from .conftest import wait_until

# The time-out holds for a machine that is busy otherwise: starting the server alone can take minutes there.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
STATE = "#/search?m=smollm2-135m&s=The+capital+of+France+is"
HARD = f"{STATE}&t=27014.9531.104&k=8&b=100000"  # a target of three odd tokens keeps a search busy
SLOW = 120_000  # ms, for what has no limit of its own, on a machine that does other work as well


def states(page):
    return page.locator("#search-state")


def has_no_sideways_scroll(page):
    return page.evaluate("() => document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def test_the_page_shows_the_distribution(make_tab):
    tab = make_tab()
    page = tab.open(STATE)
    page.wait_for_selector("#state")
    page.wait_for_selector(".bars button")
    assert page.locator(".bars button").first.inner_text().split()[0] == "␣Paris"
    assert has_no_sideways_scroll(page)


def test_a_target_is_typed_searched_and_reached_and_its_link_restores_it(make_tab):
    tab = make_tab()
    page = tab.open(STATE)
    page.wait_for_selector(".bars button")
    page.keyboard.press("Tab")
    page.locator("#target").fill(" the")
    page.wait_for_selector("#token-options li")
    page.keyboard.press("Enter")  # by keyboard alone from here
    expect(page.locator(".chip")).to_have_count(1)
    expect(page.locator(".bars button[aria-pressed=true]")).to_have_count(1)
    page.locator("#start").press("Enter")
    expect(page.locator("#verdicts .verdict")).to_have_text("reached", timeout=SLOW)
    expect(states(page)).to_have_text("done")
    assert page.locator("[data-test=prompt] .emits").inner_text() == " the"
    witness = page.locator("#verdicts tbody tr td").nth(3).inner_text()
    tab.shoot("search")
    link = page.url.partition("/#")[2]
    assert "w=" in link
    other = make_tab()
    again = other.open(f"#{link}")
    expect(again.locator("#verdicts .verdict")).to_contain_text("reached", timeout=SLOW)
    expect(again.locator("#verdicts .verdict")).to_contain_text("checked again")
    assert again.locator("#verdicts tbody tr td").nth(3).inner_text() == witness
    assert again.locator("#state").input_value() == "The capital of France is"


def test_a_link_to_a_target_that_needs_no_control_says_so(make_tab):
    page = make_tab().open(f"{STATE}&t=7042&w=-")  # " Paris"
    expect(page.locator("#verdicts .verdict")).to_contain_text("reached", timeout=SLOW)
    assert page.locator("#verdicts tbody td").nth(2).inner_text() == "0"
    assert page.locator("#verdicts tbody td").nth(3).inner_text() == "no control"
    # and nonsense in a link harms nothing
    page = make_tab().open(f"{STATE}&t=abc_7042.x_-1&w=1e9&k=-5&b=x&seed=1.5&p=nowhere")
    page.wait_for_selector(".bars button")


def test_steps_show_as_they_are_made_the_page_stays_usable_and_stop_stops(make_tab):
    tab = make_tab()
    page = tab.open(HARD)
    expect(page.locator(".chip")).to_have_count(1, timeout=SLOW)
    page.locator("#start").click()
    expect(page.locator("#verdicts .verdict")).to_have_text("searching", timeout=SLOW)
    page.locator("nav a[data-view=bound]").click()  # another question in the middle of the search
    page.locator("nav a[data-view=search]").click()
    page.locator("#target").fill("Paris")
    page.wait_for_selector("#token-options li")
    page.keyboard.press("Escape")
    expect(states(page)).to_have_text("searching …")
    page.locator("#pause").click()
    expect(states(page)).to_have_text("paused", timeout=SLOW)
    page.locator("#pause").click()
    expect(states(page)).to_have_text("searching …", timeout=SLOW)
    page.locator("#stop").click()
    expect(states(page)).to_have_text("stopped")
    expect(page.locator("#verdicts .verdict")).to_contain_text("unknown stopped")


def test_a_closed_tab_stops_its_search(make_tab, server):
    tab, watcher = make_tab(), make_tab()
    page = tab.open(HARD)
    expect(page.locator(".chip")).to_have_count(1)
    page.locator("#start").click()
    expect(page.locator("#verdicts .verdict")).to_have_text("searching", timeout=SLOW)
    other = watcher.open()
    assert running(other) == 1
    tab.page.close()
    wait_until(lambda: running(other) == 0)


def running(page):
    return page.evaluate("async () => (await (await fetch('/api/about')).json()).running")


@pytest.mark.parametrize("view", ["search", "set", "curve", "bound", "rise"])
def test_every_view_fits_a_phone_in_the_dark_and_its_link_restores_it(make_tab, view):
    tab = make_tab(color_scheme="dark")
    tab.page.set_viewport_size({"width": 360, "height": 740})
    page = tab.open(f"#/{view}")
    page.wait_for_selector("svg.chart, .bars, .empty", timeout=SLOW)
    page.wait_for_load_state("networkidle")
    if view == "bound":
        page.wait_for_selector("svg.chart rect", timeout=SLOW)
    assert has_no_sideways_scroll(page)
    assert page.evaluate("() => getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 26)"
    tab.shoot(f"phone-{view}")
    link = page.url
    page.reload()
    page.wait_for_selector("svg.chart, .bars, .empty", timeout=SLOW)
    page.wait_for_load_state("networkidle")
    assert page.url == link


def test_a_saved_set_can_be_filtered_sorted_and_opened_in_search(make_tab, runs):
    tab = make_tab()
    page = tab.open("#/set?run=set")
    rows = page.locator("#reached tbody tr")
    page.wait_for_selector("#reached")
    found = json.loads((runs / "set" / "metrics.json").read_text())["reached"]
    assert rows.count() == len(found)
    assert page.locator("#state").input_value() == "<img src=x onerror=alert(1)>"
    assert page.locator("main img").count() == 0  # hostile text is text
    page.get_by_label("Length of the witness", exact=True).select_option("1")
    assert rows.count() == sum(len(entry["control_ids"]) == 1 for entry in found)
    page.get_by_role("button", name="Rank without").click()
    ranks = [
        int(text.replace(",", "")) for text in page.locator("#reached td:nth-child(4)").all_inner_texts()
    ]
    assert ranks == sorted(ranks, reverse=True)
    tab.shoot("set")
    page.reload()
    page.wait_for_selector("#reached")
    assert rows.count() == len(ranks)  # the filter is in the link
    rows.first.press("Enter")
    expect(page).to_have_url(re.compile("#/search"))


def test_a_live_set_grows_on_the_page(make_tab):
    tab = make_tab()
    page = tab.open("#/set?s=The+old+lighthouse+keeper&k=2&n=0&f=64")
    page.locator("#explore").click()
    page.wait_for_selector("#reached tbody tr", timeout=SLOW)
    expect(page.locator("#set-state")).to_have_text("done", timeout=SLOW)
    rows = page.locator("#reached tbody tr").count()
    assert rows >= 1
    page.reload()
    expect(page.locator("#set-state")).to_have_text("explored earlier")
    assert page.locator("#reached tbody tr").count() == rows


def test_what_is_saved_and_shown_cannot_run_or_disguise_itself(make_tab):
    tab = make_tab()
    page = tab.open("#/curve")
    found = page.evaluate(
        """async () => {
            const { toCsv } = await import("/static/save.js");
            const { visible } = await import("/static/dom.js");
            return [toCsv(["a", "b"], [["=1+1", 'say "hi"'], [" x", -2], [null, "two\\nlines"]]),
                    visible("a\\u202eb\\u00a0c\\u0000 d")];
        }"""
    )
    assert found[0] == 'a,b\r\n\'=1+1,"say ""hi"""\r\n" x",-2\r\n,"two\nlines"\r\n'
    assert found[1] == "a\\u202eb\\u00a0c\\u0000 d"


def test_a_curve_shows_the_pairs_behind_a_point_by_mouse_and_by_keys(make_tab):
    tab = make_tab()
    page = tab.open("#/curve?runs=curve,published:gpt2")
    chart = page.locator("figure svg.chart")
    chart.wait_for()
    chart.focus()
    page.keyboard.press("Home")
    expect(page.locator("#tip")).to_contain_text("epsilon")
    expect(page.locator("#tip")).to_contain_text("click to list all its pairs")
    page.keyboard.press("Enter")
    page.wait_for_selector("#pairs, .empty")
    expect(page).to_have_url(re.compile("at=curve"))
    page.get_by_role("button", name="Show the pairs that were not reached").click()
    page.wait_for_selector("#pairs tbody tr")
    tab.shoot("curve")
    box = chart.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.locator("#pairs tbody tr").first.click()
    expect(page).to_have_url(re.compile("#/search"))


def test_a_curve_of_100_000_pairs_shows_its_first_page_of_pairs(big_curve, make_tab):
    page = make_tab().open(f"#/curve?runs={big_curve}&at={big_curve}@3@0")
    page.wait_for_selector("figure svg.chart circle")
    page.wait_for_selector("#pairs tbody tr")
    assert page.locator("#pairs tbody tr").count() == 50
    assert page.locator("main img").count() == 0


VANISHED = {
    "curve": "#/curve?runs=gone&at=gone@1@0",
    "set": "#/set?run=gone",
    "rise": "#/rise?run=gone",
}


@pytest.mark.parametrize("view", VANISHED)
def test_a_link_to_a_run_that_is_gone_is_said_and_the_view_stays_usable(make_tab, view):
    page = make_tab(may_miss=True).open(VANISHED[view])
    expect(page.locator("#notice")).to_contain_text("gone")
    expect(page.locator("#notice")).to_contain_text("runs folder")
    page.wait_for_selector("#main h2, #main label")
    assert page.locator("[role=alert]").count() == 0


def test_pairs_that_vanish_while_the_page_is_open_are_said_where_they_were(make_tab, runs):
    folder = runs / "vanishing"
    shutil.copytree(runs / "curve", folder)
    try:
        page = make_tab(may_miss=True).open("#/curve?runs=vanishing")
        page.wait_for_selector("figure svg.chart circle")
        page.wait_for_load_state("networkidle")
    finally:
        shutil.rmtree(folder)
    page.get_by_role("button", name="Show the pairs that were not reached").click()
    expect(page.locator("main .error")).to_contain_text("'vanishing' is not in the runs folder")


def test_the_bound_is_a_map_that_keys_can_walk(make_tab):
    tab = make_tab()
    page = tab.open("#/bound?s=hello&r=1")
    chart = page.locator("figure svg.chart")
    page.wait_for_selector("figure svg.chart rect", timeout=SLOW)
    assert chart.locator("rect").count() >= 2 * 4
    chart.focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#tip")).to_contain_text("layer 0, head 0")
    page.keyboard.press("ArrowDown")
    expect(page.locator("#tip")).to_contain_text("layer 1, head 0")
    tab.shoot("bound")


def test_an_episode_is_a_conversation_and_a_model_answers_live(make_tab):
    tab = make_tab()
    page = tab.open("#/rise?run=rise")
    page.wait_for_selector("#episode .say")
    assert page.locator("#episode .say.model").count() == 3
    page.locator(".strip button").last.click()
    expect(page.locator(".strip button[aria-pressed=true]")).to_have_count(1)
    page.locator("#try").click()
    assert page.locator("#own-problem").input_value() == page.locator("#episode .say.user").first.inner_text()
    page.locator("#own-problem").fill("Name the capital of France. <b>One</b> word.")
    page.get_by_label("Tokens per reply").fill("8")
    page.get_by_label("Turns").fill("2")
    page.get_by_label("Turns").blur()
    page.locator("#ask").click()
    expect(page.locator("#live-state")).to_have_text("done", timeout=SLOW)
    talk = page.locator("[data-side=base]")
    assert talk.locator(".say.model").count() == 2
    assert "<b>One</b>" in talk.locator(".say.user").first.inner_text()
    tab.shoot("rise")


def test_a_view_downloads_as_data_and_as_a_picture(make_tab):
    page = make_tab().open("#/curve?runs=curve,published:gpt2")
    page.wait_for_selector("figure svg.chart circle")

    def download(kind):
        with page.expect_download() as found:
            page.get_by_role("button", name=kind, exact=True).click()
        return found.value.path().read_bytes()

    assert download("JSON").startswith(b"[")
    rows = download("CSV")
    assert rows.startswith(b"curve,k,epsilon") and len(rows.splitlines()) > 8
    picture = download("PNG")
    assert picture.startswith(b"\x89PNG") and int.from_bytes(picture[16:20], "big") > 800


def test_the_theme_can_be_turned_and_stays(make_tab):
    tab = make_tab()
    page = tab.open("#/curve")
    colour = "() => getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(colour)
    page.locator("#theme").click()
    dark = page.evaluate(colour)
    assert light != dark
    page.reload()
    assert page.evaluate(colour) == dark


def test_a_projector_and_a_reader_of_screens_find_their_way(make_tab):
    tab = make_tab()
    tab.page.set_viewport_size({"width": 1920, "height": 1080})
    page = tab.open()
    page.wait_for_selector(".bars button")
    assert page.evaluate("() => parseFloat(getComputedStyle(document.documentElement).fontSize)") >= 18
    tab.shoot("projector")
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll("button, input, select, textarea, a")].filter((e) =>
            !(e.labels?.length || e.getAttribute("aria-label") || e.textContent.trim() || e.title)).length"""
    )
    assert unnamed == 0
