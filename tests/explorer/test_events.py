"""Events as the page reads them."""

import json

from llmctl.explorer.events import Message, Refused, SearchStepped, StateChanged
from llmctl.runs.files import to_json


def sent(event, kind="search", job="one"):
    """An event as it goes over the socket."""
    return json.loads(to_json(Message(kind, job, event)))


def test_a_message_names_its_job_and_holds_the_fields_of_its_event():
    found = sent(SearchStepped(0, "gcg", 2, 1.5, False, 10, 100, best={"loss": 1.5}))
    assert found == {
        "kind": "search", "job": "one", "event": "step", "place": 0, "method": "gcg", "k": 2, "loss": 1.5,
        "is_hit": False, "forwards": 10, "forward_tokens": 100, "best": {"loss": 1.5},
    }  # fmt: skip


def test_what_is_not_known_is_left_out():
    assert sent(StateChanged("running")) == {
        "kind": "search",
        "job": "one",
        "event": "state",
        "state": "running",
    }
    assert sent(StateChanged("waiting", place=2))["place"] == 2
    assert "best" not in sent(SearchStepped(0, "gcg", 2, None, False, 10, 100))


def test_a_refusal_may_belong_to_no_job():
    found = sent(Refused("the request is not JSON"), None, None)
    assert found == {"kind": None, "job": None, "event": "refused", "error": "the request is not JSON"}
