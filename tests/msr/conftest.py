from tests.runs.conftest import run_and_kill  # noqa: F401  a fixture
