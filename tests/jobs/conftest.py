import pytest


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch, request):
    """Rates that a test measures stay its own; the embedded model's cache is left to those who need it."""
    if "embedded_model" not in request.fixturenames:
        monkeypatch.setenv("LLMCTL_CACHE", str(tmp_path / "cache"))
