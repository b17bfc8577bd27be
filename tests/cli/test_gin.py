"""`llmctl gin`: compare by its recipe, show the graph of a layer, and refuse in one line."""

import json

import pytest
import yaml

from llmctl.runs import list_recipes, load_recipe
from llmctl.studies.adapters.recipe import AdapterCompareRecipe

RECIPE = {
    "kind": "gin-compare",
    "arms": ["base", "sparse_gin"],
    "budget": 9000,
    "data": {"rows": 4, "validation_rows": 2},
    "train": {"learning_rate": 1e-2, "batch_size": 4},
    "seeds": [0],
    "isolate": False,
}


@pytest.fixture
def recipe(tiny_model, tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(RECIPE | {"model": str(tiny_model)}))
    return str(path)


@pytest.fixture(scope="module")
def adapter(tiny_model, tmp_path_factory):
    """A Sparse-GIN adapter on the tiny model's second layer, its scale not 0."""
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM

    from llmctl.gin import SparseGinConfig

    folder = tmp_path_factory.mktemp("adapter")
    config = SparseGinConfig(width=4, layers=[1], scale_first=0.5, scale_last=0.5, epsilon=0.3)
    get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model), config).save_pretrained(folder)
    return str(folder)


def test_compare_prints_the_metrics_or_a_table(llmctl, recipe, tmp_path):
    with_run = ("--run", str(tmp_path / "run"))
    done = llmctl("gin", "compare", recipe, *with_run, "--json")
    assert done.code == 0 and json.loads(done.out) == json.loads((tmp_path / "run/metrics.json").read_text())
    again = llmctl("gin", "compare", recipe, *with_run)
    assert "Sparse-GIN minus base: validation loss" in again.out and "There is one seed" in again.out


def test_a_dry_run_says_the_sizes_and_makes_nothing(llmctl, recipe, tmp_path):
    done = llmctl("gin", "compare", recipe, "--run", str(tmp_path / "run"), "--dry-run")
    assert "# trained parameters, sparse_gin (width " in done.out and "# trainings: 1" in done.out
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("arms=[base, dora]", "arms.1 is 'dora'"),
        ("budget=100", "budget is 100 parameters, but the smallest"),
        ("data.validation_rows=0", "data.validation_rows is 0"),
    ],
)
def test_a_mistake_is_one_line_and_no_folder(llmctl, recipe, tmp_path, change, message):
    done = llmctl("gin", "compare", recipe, "--run", str(tmp_path / "run"), "--set", change)
    assert done.code == 2 and message in done.err and done.err.count("\n") == 1 and done.out == ""
    assert not (tmp_path / "run").exists()


def test_every_recipe_of_gin_can_be_read():
    names = [name for name in list_recipes() if name.startswith("gin/")]
    assert {"gin/demo", "gin/smoke", "gin/llama-3.2-3b", "gin/scratch"} <= set(names)
    for name in names:
        load_recipe(AdapterCompareRecipe, name)


def test_show_gives_the_graph_of_a_layer_as_json_and_figures(llmctl, tiny_model, adapter, tmp_path):
    arguments = ("gin", "show", "--model", str(tiny_model), "--adapter", adapter, "--layer", "1")
    done = llmctl(*arguments, "--text", "tom and $ tim", "--out", str(tmp_path / "out"), "--json")
    found = json.loads(done.out)
    assert found["tokens"] == list("tom and $ tim") and found["scales"] == {"1": 0.5}
    size = len(found["tokens"])
    graph = found["adjacency"]
    assert all(graph[i][j] == 0 for i in range(size) for j in range(i + 1, size))  # no edge to a later token
    assert found["hears"] == [sum(graph[i][j] > 0 for j in range(i)) for i in range(size)]
    assert found["heard_by"] == [sum(graph[i][j] > 0 for i in range(j + 1, size)) for j in range(size)]
    weights = [edge["weight"] for edge in found["edges"]]
    assert weights == sorted(weights, reverse=True) and len(weights) <= 20
    for edge in found["edges"]:
        assert edge["heard"] < edge["hears"]
        assert edge["weight"] == graph[edge["hears"]][edge["heard"]]
        assert edge["text"] == [found["tokens"][edge["hears"]], found["tokens"][edge["heard"]]]
    assert [path.rsplit("/", 1)[-1] for path in found["figures"]] == [
        f"layer-1-{name}.png" for name in ("adjacency", "degrees", "scales")
    ]
    assert json.loads((tmp_path / "out" / "layer-1.json").read_text())["adjacency"] == graph
    assert all(
        (tmp_path / "out" / path.rsplit("/", 1)[-1]).stat().st_size > 3000 for path in found["figures"]
    )


def test_show_without_an_adapter_says_so_and_draws_svg(llmctl, tiny_model, tmp_path):
    done = llmctl(
        "gin", "show", "--model", str(tiny_model), "--text", "abc", "--out", str(tmp_path), "--format", "svg"
    )
    assert done.code == 0 and "No adapter was given" in done.out and "layer-0-scales.svg" in done.out
    first = (tmp_path / "layer-0-adjacency.svg").read_bytes()
    llmctl(
        "gin", "show", "--model", str(tiny_model), "--text", "abc", "--out", str(tmp_path), "--format", "svg"
    )
    assert (tmp_path / "layer-0-adjacency.svg").read_bytes() == first


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--layer", "7"), "--layer is 7, but there is a graph at layers 0 to 1"),
        (("--format", "gif"), "--format is 'gif', but it must be one of png, svg"),
        (("--model", "no/where"), "no/where"),
        (("--text", "x" * 600), "the text has 600 tokens, but 2 to 512"),
    ],
)
def test_show_refuses_in_one_line_before_a_folder_is_made(llmctl, tiny_model, tmp_path, arguments, message):
    given = ("gin", "show", "--model", str(tiny_model), "--text", "abc", "--out", str(tmp_path / "out"))
    done = llmctl(*given, *arguments)
    assert done.code == 2 and message in done.err and done.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_show_refuses_a_layer_without_a_graph_and_another_kind_of_adapter(
    llmctl, tiny_model, adapter, tmp_path
):
    given = ("gin", "show", "--model", str(tiny_model), "--text", "abc")
    done = llmctl(*given, "--adapter", adapter, "--layer", "0")
    assert done.code == 2 and "--layer is 0, but there is a graph at layers 1" in done.err
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    lora = get_peft_model(
        AutoModelForCausalLM.from_pretrained(tiny_model), LoraConfig(target_modules=["q_proj"])
    )
    lora.save_pretrained(tmp_path / "lora")
    done = llmctl(*given, "--adapter", str(tmp_path / "lora"))
    assert done.code == 2 and "no Sparse-GIN adapter" in done.err
