from typing import ClassVar, Literal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import Field, ValidationError, field_validator

from llmctl.errors import UserError
from llmctl.runs import recipe as recipe_module
from llmctl.runs.recipe import (
    Recipe,
    differences,
    dump_recipe,
    find_recipe,
    list_recipes,
    load_recipe,
    recipe_name,
)
from llmctl.runs.yaml_text import BrokenYamlError, dump_yaml, parse_yaml


class Sampling(Recipe):
    n: int = Field(default=4, ge=1)
    temperature: float = 1.0
    stop: tuple[str, ...] = ()


class Engine(Recipe):
    name: Literal["transformers", "vllm"] = "transformers"
    batch_size: int = 16


class Demo(Recipe):
    kind: ClassVar[str] = "demo"

    model: str
    seed: int = 0
    sampling: Sampling = Sampling()
    engine: Engine | None = None

    @field_validator("model")
    @classmethod
    def _not_empty(cls, value: str) -> str:
        if not value:
            raise ValueError("a model is needed, e.g. smollm2-135m")
        return value


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(text, name="recipes/demo/one.yaml"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write


def refused(path, *overrides):
    with pytest.raises(UserError) as caught:
        load_recipe(Demo, path, list(overrides))
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_recipe_is_found_by_name_and_by_path(write):
    path = write("kind: demo\nmodel: m\nsampling: {n: 2}\n")
    by_name = load_recipe(Demo, "demo/one")
    assert by_name == load_recipe(Demo, path) == Demo(model="m", sampling=Sampling(n=2))
    assert by_name.sampling.temperature == 1.0


def test_the_folder_here_comes_before_the_checkout_and_the_package(write, tmp_path, monkeypatch):
    package = tmp_path / "site" / "llmctl"
    monkeypatch.setattr(recipe_module, "__file__", str(package / "runs" / "recipe.py"))
    for place, seed in (("site/llmctl/_recipes", 3), ("site/recipes", 2), ("recipes", 1)):
        write(f"model: m\nseed: {seed}\n", f"{place}/demo/one.yaml")
        assert load_recipe(Demo, "demo/one").seed == seed
    write("model: m\n", "site/llmctl/_recipes/demo/two.yml")
    assert list_recipes() == ["demo/one", "demo/two"]


def test_overrides_are_laid_over_the_file(write):
    path = write("model: m\nsampling: {n: 2}\n")
    recipe = load_recipe(
        Demo,
        path,
        ["sampling.temperature=1e-1", "sampling.stop=[no, '#']", "engine.name=vllm", "model=a=b", "seed=7"],
    )
    assert recipe.sampling == Sampling(n=2, temperature=0.1, stop=("no", "#"))
    assert recipe.engine == Engine(name="vllm")
    assert (recipe.model, recipe.seed) == ("a=b", 7)
    assert load_recipe(Demo, path, ["engine.name=vllm", "engine="]).engine is None


def test_an_unknown_key_is_refused_with_the_nearest_known_one(write):
    path = write("model: m\nsampling: {temprature: 0.5}\n")
    assert refused(path) == (
        f"{path}: unknown key 'sampling.temprature': did you mean 'sampling.temperature'?"
    )


def test_a_key_in_the_wrong_section_is_sent_to_its_own(write):
    path = write("model: m\nbatch_size: 3\n")
    assert "unknown key 'batch_size': did you mean 'engine.batch_size'?" in refused(path)


def test_a_key_like_no_other_is_refused_with_those_there_are(write):
    path = write("model: m\n")
    message = refused(path, "sampling.zzz=1")
    assert message == "--set sampling.zzz: unknown key 'sampling.zzz': known are sampling.n, " + (
        "sampling.temperature, sampling.stop"
    )


def test_a_wrong_type_is_refused_with_what_was_received_and_what_is_needed(write):
    path = write("model: m\nsampling: {temperature: hot}\n")
    assert f"{path}: sampling.temperature is 'hot' (str), but it should be a valid number" in refused(path)


def test_a_wrong_value_from_set_names_the_option(write):
    message = refused(write("model: m\n"), "sampling.n=0")
    assert message == "--set sampling.n: sampling.n is 0 (int), but it should be greater than or equal to 1"


def test_several_mistakes_are_counted(write):
    assert refused(write("model: m\na: 1\nb: 2\nc: 3\n")).endswith("(and 2 more)")


def test_a_missing_key_and_a_validators_words_are_passed_on(write):
    assert "the key 'model' is missing" in refused(write("seed: 1\n"))
    assert "model: a model is needed, e.g. smollm2-135m" in refused(write("model: ''\n"))


def test_infinity_is_refused(write):
    assert "finite" in refused(write("model: m\nsampling: {temperature: .inf}\n"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("model: m\nseed: [1\n", r"line 3: broken YAML: expected ',' or ']'"),
        ("model: m\nseed: 1\nseed: 2\n", 'line 3: broken YAML: found duplicate key "seed"'),
        ("- model\n", "holds a list, but a recipe is a mapping"),
        (
            "model: !!python/object/apply:os.getcwd []\n",
            "line 1: broken YAML: could not determine a constructor",
        ),
        ("model: \x07\n", "broken YAML"),
    ],
)
def test_broken_yaml_is_refused_with_its_line(write, text, reason):
    assert reason in refused(write(text))


def test_text_that_is_not_utf8_is_refused(write):
    path = write("")
    path.write_bytes(b"model: \xff\n")
    assert "is not UTF-8 text" in refused(path)


def test_a_recipe_of_another_kind_is_refused(write):
    path = write("kind: rise\nmodel: m\n")
    assert "is a recipe of kind 'rise', but this command needs one of kind 'demo'" in refused(path)


def test_a_missing_recipe_is_refused_with_those_there_are(write, monkeypatch, tmp_path):
    monkeypatch.setattr(recipe_module, "__file__", str(tmp_path / "site" / "llmctl" / "runs" / "recipe.py"))
    assert "there are no recipes here; give a YAML file" in refused("demo/one")
    write("model: m\n", "recipes/demo/one.yaml")
    write("model: m\n", "recipes/demo/two.yaml")
    assert (
        refused("demo/onne") == "no recipe 'demo/onne': did you mean demo/one? known are demo/one, demo/two"
    )
    assert refused("gone.yaml").startswith("no recipe 'gone.yaml': known are demo/one, demo/two")


@pytest.mark.parametrize("override", ["seed", "=1", "a..b=1", ".a=1"])
def test_an_override_that_is_no_assignment_is_refused(write, override):
    assert "is not of the form key=value" in refused(write("model: m\n"), override)


def test_an_override_below_a_plain_value_is_refused(write):
    assert "seed is 3, which has no keys below it" in refused(write("model: m\nseed: 3\n"), "seed.x=1")


def test_a_dump_loads_again_as_the_same_recipe(write):
    recipe = Demo(
        model="yes", seed=3, sampling=Sampling(temperature=1e-5, stop=("no", "\n#")), engine=Engine()
    )
    text = dump_recipe(recipe)
    assert text.splitlines()[:3] == ["kind: demo", "model: 'yes'", "seed: 3"]
    assert load_recipe(Demo, write(text)) == recipe


def test_recipes_are_frozen():
    with pytest.raises(ValidationError):
        Demo(model="m").seed = 3


def test_differences_name_keys_that_changed_came_or_went():
    old = {"a": 1, "b": {"c": [1], "d": None}, "free": {"x": 1}, "gone": "x"}
    new = {"a": 1.5, "b": {"c": [1, 2], "d": None}, "free": {"x": 2}, "new": {"y": True}}
    assert differences(old, new, free=("free",)) == [
        "a 1 -> 1.5",
        "b.c [1] -> [1, 2]",
        "gone 'x' -> (absent)",
        "new.y (absent) -> True",
    ]
    assert differences({"freedom": 1}, {"freedom": 2}, free=("free",)) == ["freedom 1 -> 2"]


def test_names_for_run_folders():
    assert recipe_name("rise/default") == "rise/default"
    assert recipe_name("my/own.yaml") == "own"
    assert recipe_name("/tmp/x.yml") == "x"


def test_a_path_without_an_ending_is_read_as_it_is(write, tmp_path):
    write("model: m\n", "plain")
    assert find_recipe("plain") == find_recipe(type(tmp_path)("plain"))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5),
        ("no", "no"),
        ("yes", "yes"),
        ("1:30", "1:30"),
        ("010", 10),
        ("0x1F", 31),
        ("0o17", 15),
        ("2024-01-01", "2024-01-01"),
        ("True", True),
        ("~", None),
        ("", None),
        (".5", 0.5),
        ("1.", 1.0),
        ("-3", -3),
        ("1_000", "1_000"),
    ],
)
def test_scalars_follow_yaml_1_2(text, value):
    read = parse_yaml(f"key: {text}\n")["key"]
    assert read == value and type(read) is type(value)


plain_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(deadline=None)  # a busy machine is no failure
@example({"\x85": ["\u2028 \u2029", "\n\x85"]})
@given(plain_values)
def test_whatever_is_dumped_loads_as_itself(value):
    try:
        assert parse_yaml(dump_yaml(value)) == value
    except BrokenYamlError as error:  # YAML knows no such characters, not even escaped
        raise AssertionError(f"{value!r} cannot be read back") from error
