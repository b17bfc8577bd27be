import pytest

from llmctl.errors import UserError
from llmctl.trust import allow_host, check_options, key_for
from llmctl.trust import keys as module


@pytest.fixture(autouse=True)
def key(monkeypatch, tmp_path):
    """A key in the environment, no host named, an empty configuration."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr(module, "_named", set())
    return tmp_path


def test_a_server_that_only_a_recipe_names_gets_no_key():
    assert key_for("https://evil.example/v1") is None
    assert "add --allow-host evil.example" in module.withheld("https://evil.example/v1")


def test_a_host_that_the_user_named_gets_it_and_no_other():
    allow_host("https://api.example.org/v1")
    assert key_for("https://API.example.org/v1") == "sk-test"
    assert key_for("https://api.example.org.evil.example/v1") is None
    assert key_for("https://api.example.org:444/v1") is None
    assert key_for("https://api.example.org@evil.example/v1") is None


def test_the_users_own_configuration_names_hosts(key):
    (key / "llmctl").mkdir()
    (key / "llmctl" / "config.toml").write_text('hosts = ["api.example.org", "localhost:8000"]\n')
    assert key_for("https://api.example.org/v1") == "sk-test"
    assert key_for("http://localhost:8000/v1") == "sk-test"
    assert key_for("http://localhost:8001/v1") is None


def test_a_broken_configuration_is_told_of(key):
    (key / "llmctl").mkdir()
    (key / "llmctl" / "config.toml").write_text("hosts = 3\n")
    with pytest.raises(UserError, match="a list of names is needed"):
        key_for("https://api.example.org/v1")


def test_without_a_key_there_is_nothing_to_withhold(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    assert module.withheld("https://evil.example/v1") == ""


@pytest.mark.parametrize("name", ["api_key", "API-KEY", "token", "Authorization"])
def test_a_secret_in_a_recipe_is_refused(name):
    with pytest.raises(UserError, match="is a secret in a recipe"):
        check_options({name: "sk-1"}, "sampler.options")


def test_plain_options_pass():
    check_options({"max_parallel": 4, "base_url": "http://127.0.0.1:8000/v1"}, "sampler.options")


@pytest.mark.parametrize("address", ["", "https://", "http://[::1", "http://x:port/"])
def test_an_address_without_a_host_is_refused(address):
    with pytest.raises(UserError):
        allow_host(address)
