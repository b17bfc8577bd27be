"""Attacks that once succeeded: each of these tests fails where the boundary is not wired in."""

import json
import os
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from llmctl.errors import UserError
from llmctl.runs import Recipe, Run
from llmctl.trust import allow_code, allow_host


class Demo(Recipe):
    seed: int = 0


def job(task, **model):
    return json.dumps(
        {"models": {"m": {"model": "nowhere", **model}}, "tasks": task, "protocols": ["single"]}
    )


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Run a command line in an empty folder; gives code, stdout and stderr."""
    from llmctl.cli import main

    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        return (ended.value.code, *capsys.readouterr())

    return call


@pytest.fixture
def own_code(tmp_path):
    (tmp_path / "mine_for_trust.py").write_text(
        "import pathlib\nfrom llmctl.tasks import get_task\n"
        f"def make():\n    pathlib.Path({str(tmp_path / 'EXECUTED')!r}).touch()\n"
        "    return get_task('sort', size=8)\n"
    )
    (tmp_path / "r.yaml").write_text(job({"t": {"name": "python:mine_for_trust:make"}}))
    return tmp_path


def test_a_dry_run_runs_no_code_even_where_it_is_allowed_and_says_what_would_run(own_code, command):
    code, out, _ = command("eval", "run", "r.yaml", "--dry-run", "--allow-code")
    assert code == 0 and not (own_code / "EXECUTED").exists()
    assert "# runs code of others: tasks.t.name 'python:mine_for_trust:make'" in out


def test_a_run_needs_the_flag_and_leaves_no_folder_without_it(own_code, command):
    code, _, err = command("eval", "run", "r.yaml", "--run", "run")
    assert code == 2 and "start again with --allow-code" in err
    assert not (own_code / "EXECUTED").exists() and not (own_code / "run").exists()


def test_with_the_flag_the_users_code_runs(own_code, command):
    code, out, err = command("tasks", "show", "python:mine_for_trust:make", "--limit", "1", "--allow-code")
    assert code == 0, err
    assert (own_code / "EXECUTED").exists() and "[answer]" in out


def test_the_flag_ends_with_its_command(own_code, command):
    command("tasks", "show", "python:mine_for_trust:make", "--limit", "1", "--allow-code")
    code, _, err = command("tasks", "show", "python:mine_for_trust:make", "--limit", "1")
    assert code == 2 and "--allow-code" in err


def test_the_standard_library_is_refused_with_the_flag_too(tmp_path, command):
    options = {"command": "touch EXECUTED"}
    (tmp_path / "r.yaml").write_text(job({"t": {"name": "python:os:system", "options": options}}))
    code, _, err = command("eval", "run", "r.yaml", "--run", "run", "--allow-code")
    assert code == 2 and "standard library" in err and not (tmp_path / "EXECUTED").exists()


def test_a_worker_process_is_told_by_its_parent(own_code, monkeypatch):
    from multiprocessing import get_context

    from llmctl.trust import is_code_allowed, permissions

    allow_code()
    allow_host("api.example.org")
    told = permissions()
    context = get_context("spawn")
    with context.Pool(1) as pool:
        assert pool.apply(is_code_allowed) is False
        pool.apply(told.adopt)
        assert pool.apply(permissions) == told


def test_a_child_command_is_told_by_its_parent():
    from llmctl.trust import is_code_allowed
    from llmctl.trust.permissions import child_arguments, take_arguments

    assert child_arguments() == []
    allow_code()
    given = ["job.json", *child_arguments()]
    allow_code(False)
    assert take_arguments(given) == ["job.json"] and is_code_allowed()


def test_code_of_a_model_is_not_loaded_without_the_word(tiny_model):
    from llmctl.models.loading import load

    with pytest.raises(UserError, match="with trust_remote_code runs code that is not llmctl's"):
        load(tiny_model, trust_remote_code=True)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "precious.txt").write_text("precious")
    with Run.open(tmp_path / "run", Demo(), "demo") as run:
        run.write_text("notes/a.txt", "a")
        run.journal("work").append("one", {"x": 1})
    return tmp_path / "run"


@pytest.mark.parametrize("name", ["../victim", "a/../../victim", "/etc", "", ".", "manifest.json", "a\0b"])
@pytest.mark.parametrize("fresh", [True, False])
def test_a_manifest_removes_nothing_outside_its_folder(folder, name, fresh):
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"made": [name], "is_emptying": True}))
    with pytest.raises(UserError):
        Run.open(folder, Demo(), "demo", fresh)
    assert (folder.parent / "victim" / "precious.txt").read_text() == "precious"


@pytest.mark.parametrize("made", ["x", [3], {"a": 1}, None])
def test_what_a_manifest_has_made_is_a_list_of_names(folder, made):
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"made": made}))
    with pytest.raises(UserError, match="not a manifest of llmctl"):
        Run.open(folder, Demo(), "demo")


@pytest.mark.parametrize("place", [".lock", "manifest.json", "recipe.yaml", "journal/work.jsonl", "notes"])
def test_a_link_in_a_run_folder_is_refused(folder, place):
    target = folder / place
    target.unlink() if target.is_file() else os.rename(target, folder / "elsewhere")
    victim = folder.parent / "victim"
    target.symlink_to(victim if place == "notes" else victim / "precious.txt")
    with pytest.raises(UserError, match="is a link|through a link"):
        Run.open(folder, Demo(), "demo")
    assert (victim / "precious.txt").read_text() == "precious"


@pytest.mark.parametrize("place", [".lock", "journal/work.jsonl"])
def test_a_second_name_of_a_file_elsewhere_is_not_written_to(folder, place):
    (folder / place).unlink()
    os.link(folder.parent / "victim" / "precious.txt", folder / place)
    with pytest.raises(UserError, match="has a second name"):
        with Run.open(folder, Demo(), "demo") as run:
            run.journal("work").append("two", {"x": 2})
    assert (folder.parent / "victim" / "precious.txt").read_text() == "precious"


def test_a_temporary_file_that_is_a_link_is_removed_and_not_followed(folder):
    victim = folder.parent / "victim" / "precious.txt"
    (folder / ".manifest.json.llmctl-tmp").symlink_to(victim)
    (folder / "notes" / ".a.txt.llmctl-tmp").symlink_to(victim)
    with Run.open(folder, Demo(), "demo") as run:
        run.write_text("notes/a.txt", "b")
        run.note(x=1)
    assert victim.read_text() == "precious" and (folder / "notes/a.txt").read_text() == "b"


@pytest.mark.parametrize("name", ["../x", "journal/../../x", "/x", "a\0b"])
def test_a_name_of_an_arm_that_leads_out_is_a_mistake_in_words(folder, name):
    with Run.open(folder, Demo(), "demo") as run, pytest.raises(UserError, match="is not a name inside"):
        run.path(name)


@pytest.mark.parametrize("place", ["manifest.json", "recipe.yaml", "journal/work.jsonl", ".lock"])
def test_a_pipe_in_a_run_folder_is_not_waited_for(folder, place):
    (folder / place).unlink()
    os.mkfifo(folder / place)
    with pytest.raises(UserError, match="a pipe or a device"):
        with Run.open(folder, Demo(), "demo") as run:
            run.journal("work")


@pytest.mark.parametrize("line", [b"[" * 200_000, b'{"key": "a", "x": ' + b"9" * 5000 + b"}"])
def test_a_journal_that_nests_deep_or_holds_a_huge_number_is_broken_in_words(folder, line):
    (folder / "journal/work.jsonl").write_bytes(line + b"\n")
    with Run.open(folder, Demo(), "demo") as run, pytest.raises(UserError, match="line 1 is broken"):
        run.journal("work")


def test_a_line_of_a_journal_that_is_too_long_is_refused_before_it_is_parsed(folder, monkeypatch):
    from llmctl.runs import journal

    monkeypatch.setattr(journal, "LINE_BYTES", 1000)
    (folder / "journal/work.jsonl").write_bytes(b'{"key": "' + b"x" * 2000 + b'"}\n')
    with Run.open(folder, Demo(), "demo") as run, pytest.raises(UserError, match="longer than 1,000 bytes"):
        run.journal("work")


@pytest.fixture
def listener(monkeypatch, tmp_path):
    """A server that refuses everybody, and what it was sent."""
    heard = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            heard.append(self.headers.get("authorization"))
            body = json.dumps({"error": {"message": f"no: {self.headers.get('authorization')}"}}).encode()
            self.send_response(401)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-user")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    yield f"http://127.0.0.1:{server.server_port}/v1", heard
    server.shutdown()
    server.server_close()


def test_a_server_that_only_a_recipe_names_gets_no_key_and_the_error_says_so(listener):
    from llmctl.sampling import open_sampler

    url, heard = listener
    with pytest.raises(UserError, match="OPENAI_API_KEY was not sent.*--allow-host 127.0.0.1"):
        open_sampler("m", engine="server", base_url=url)
    assert heard == ["Bearer none"]


def test_a_server_that_the_user_names_gets_the_key_which_no_error_repeats(listener, command):
    url, heard = listener
    code, out, err = command("sample", "hello", "--base-url", url)
    assert code == 2 and heard == ["Bearer sk-of-the-user"]
    assert "sk-of-the-user" not in out + err and "(the key)" in err


def test_an_address_on_the_command_line_names_its_host():
    from llmctl.rise.recipe import RiseRecipe
    from llmctl.runs import build_recipe
    from llmctl.trust.keys import named_hosts

    build_recipe(RiseRecipe, {"model": "m"}, "x", ["sampler.options.base_url=http://a.example:8000/v1"])
    build_recipe(RiseRecipe, {"model": "m"}, "x", ["sampler.options={base_url: 'http://b.example/v1'}"])
    assert named_hosts() == {"a.example:8000", "b.example"}


@pytest.mark.parametrize(
    "options",
    [{"api_key": "sk-1"}, {"extra": {"API-Key": "sk-1"}}, {"base_url": "https://u:sk-1@h.example/v1"}],
)
def test_a_key_in_a_recipe_is_refused_and_not_repeated(tmp_path, command, options):
    (tmp_path / "r.yaml").write_text(job(["sort"], engine="server", options=options))
    code, out, err = command("eval", "run", "r.yaml", "--run", "run")
    assert code == 2 and "sk-1" not in out + err and not (tmp_path / "run").exists()


def test_an_adapter_of_pickled_weights_is_refused(tmp_path, tiny_model):
    from llmctl.models.loading import load

    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "task_type": "CAUSAL_LM"}))
    (tmp_path / "adapter_model.bin").write_bytes(b"cos\nsystem\n(S'touch EXECUTED'\ntR.")
    with pytest.raises(UserError, match="only safetensors are loaded"):
        load(tiny_model, adapter=tmp_path)


def test_results_that_are_no_parquet_are_refused_in_words(tmp_path):
    from llmctl.runs.parquet import open_parquet

    for number, data in enumerate((b"", b"PAR1", b"PAR1" + bytes(range(256)) * 8 + b"\xff\x00\x00\x00PAR1")):
        (tmp_path / f"{number}.parquet").write_bytes(data)
        with pytest.raises(UserError, match="no readable Parquet file"):
            open_parquet(tmp_path / f"{number}.parquet", "run the job again")


def test_a_deep_row_of_problems_is_a_mistake_in_words(tmp_path):
    from llmctl.tasks import get_task

    (tmp_path / "test.jsonl").write_text("[" * 200_000 + "\n")
    with pytest.raises(UserError, match="line 1"):
        list(get_task("jsonl", path=tmp_path / "test.jsonl"))


def test_a_chat_template_that_loops_over_a_billion_is_refused(tiny_model):
    from llmctl.models.loading import load_tokenizer
    from llmctl.sampling.common import render

    tokenizer = load_tokenizer(tiny_model)
    tokenizer.chat_template = "{% for i in range(10 ** 9) %}x{% endfor %}"
    with pytest.raises(UserError, match="the chat template refuses the conversation"):
        render(tokenizer, [{"role": "user", "content": "a"}])


def test_an_error_holds_no_character_that_steers_a_terminal(command, tmp_path):
    _, _, err = command("reach", "curve", "no\x1b[2Jsuch")
    assert "\x1b" not in err
