import shutil

from llmctl.explorer.library import Library


def test_a_run_that_is_removed_after_it_was_listed_is_left_out(tmp_path):
    for name in ("kept", "removed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text("{}")
        (tmp_path / name / "recipe.yaml").write_text("kind: rise\n")
    library = Library(tmp_path)
    assert [run["name"] for run in library.runs()] == ["kept", "removed"]
    shutil.rmtree(tmp_path / "removed")
    assert [run["name"] for run in library.runs()] == ["kept"]
