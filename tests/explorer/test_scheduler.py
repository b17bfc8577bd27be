"""Turns, slots and jobs: who computes, who waits, and how fast a stop is."""

import threading
import time

import pytest

from llmctl.errors import UserError
from llmctl.explorer.events import StateChanged
from llmctl.explorer.jobs import Job, watch
from llmctl.explorer.scheduler import Scheduler
from llmctl.explorer.turns import Stopped

from .conftest import wait_until


@pytest.fixture
def scheduler():
    return Scheduler(running=2, waiting=2, questions=2)


class Watched:
    """A job whose passes are counted, and whose news is kept."""

    def __init__(self, scheduler, passes=10**9, pause=0.002):
        self.news, self.passes = [], 0
        self.ended = threading.Event()

        def work(job):
            while self.passes < passes:
                job.step_aside()
                self.passes += 1
                time.sleep(pause)

        self.job = Job(scheduler, "search", "one", work, self.hear)

    def hear(self, message):
        self.news.append(message.event)

    @property
    def states(self):
        return [event.state for event in self.news if isinstance(event, StateChanged)]


def test_two_searches_take_turns_pass_by_pass(scheduler):
    jobs = [Watched(scheduler), Watched(scheduler)]
    for watched in jobs:
        watched.job.start()
    wait_until(lambda: min(w.passes for w in jobs) > 5)
    before = [w.passes for w in jobs]
    wait_until(lambda: min(w.passes - at for w, at in zip(jobs, before, strict=True)) > 30)
    first, second = (w.passes - at for w, at in zip(jobs, before, strict=True))
    assert max(first, second) < 3 * min(first, second)  # neither starves
    for watched in jobs:
        watched.job.stop()
        assert watched.job.join(120)
        assert watched.states[-1] == "stopped"


def test_a_question_is_answered_in_the_middle_of_a_search(scheduler):
    watched = Watched(scheduler)
    watched.job.start()
    wait_until(lambda: watched.passes > 3)
    assert scheduler.ask(lambda: 42) == 42
    assert watched.states[-1] == "running"
    watched.job.stop()
    assert watched.job.join(120)


def test_a_search_stands_still_while_it_is_paused_and_its_slot_serves_another(scheduler):
    paused, other, third = Watched(scheduler), Watched(scheduler), Watched(scheduler)
    paused.job.start()
    other.job.start()
    wait_until(lambda: other.passes > 3)
    third.job.start()
    wait_until(lambda: "waiting" in third.states)
    assert third.news[0].place == 1 and third.passes == 0
    paused.job.pause()
    wait_until(lambda: paused.states[-1] == "paused" and third.passes > 3)
    still = paused.passes
    time.sleep(0.1)
    assert paused.passes == still
    paused.job.go_on()
    other.job.stop()
    wait_until(lambda: paused.passes > still)
    assert paused.states[-1] == "running"
    for watched in (paused, third):
        watched.job.stop()
        assert watched.job.join(120)


@pytest.mark.parametrize("is_paused", [False, True])
def test_a_stopped_search_gives_its_slot_back(scheduler, is_paused):
    for _ in range(5):  # more than there are slots
        watched = Watched(scheduler)
        watched.job.start()
        wait_until(lambda w=watched: w.passes > 1)
        if is_paused:
            watched.job.pause()
            wait_until(lambda w=watched: w.states[-1] == "paused")
        watched.job.stop()
        assert watched.job.join(120)
        assert watched.states[-1] == "stopped"
    assert scheduler.ask(lambda: "free") == "free"


def test_a_search_that_waits_can_be_stopped_and_a_full_line_is_refused(scheduler):
    running = [Watched(scheduler), Watched(scheduler)]
    waiting = [Watched(scheduler), Watched(scheduler)]
    for watched in running + waiting:
        watched.job.start()
        wait_until(lambda w=watched: w.states)
    with pytest.raises(UserError, match="2 searches wait already"):
        Watched(scheduler).job.start()
    waiting[0].job.stop()
    assert waiting[0].job.join(120) and waiting[0].states == ["waiting", "stopped"]
    wait_until(lambda: waiting[1].news[-1].place == 1)  # moved up
    for watched in running + waiting:
        watched.job.stop()
        assert watched.job.join(120)


def test_what_goes_wrong_in_a_job_is_told_and_frees_the_model(scheduler):
    def work(job):
        raise UserError("the state is too long")

    news = []
    job = Job(scheduler, "search", "one", work, news.append)
    job.start()
    assert job.join(120)
    assert news[-1].event.state == "failed" and news[-1].event.error == "the state is too long"
    assert scheduler.ask(lambda: 1) == 1


def test_too_many_questions_are_refused(scheduler):
    hold, held = threading.Event(), threading.Event()

    def slow():
        held.set()
        hold.wait(120)

    threads = [threading.Thread(target=scheduler.ask, args=(slow,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    held.wait(120)
    wait_until(lambda: scheduler._open._value == 0)
    with pytest.raises(UserError, match="too many questions"):
        scheduler.ask(lambda: 1)
    hold.set()
    for thread in threads:
        thread.join(120)


def test_a_stop_ends_a_forward_pass_between_two_layers(tiny_model):
    import torch

    from llmctl.models import load

    model = load(tiny_model, device="cpu").model
    watch(model)
    layers = []
    for module in model.modules():
        if hasattr(module, "layer_idx"):
            module.register_forward_hook(lambda *_: layers.append(1) or job.stop())

    def work(job):
        model(input_ids=torch.tensor([[5, 6, 7]]))
        raise AssertionError("the pass went to its end")

    news = []
    job = Job(Scheduler(1, 1, 1), "search", "one", work, news.append)
    job.start()
    assert job.join(120)
    assert news[-1].event.state == "stopped" and len(layers) == 1
    model(input_ids=torch.tensor([[5, 6, 7]]))  # without a job the hooks do nothing
    assert issubclass(Stopped, BaseException) and not issubclass(Stopped, Exception)
