import importlib.metadata
import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

from llmctl.cli import checks
from llmctl.cli.checks import Status


@pytest.fixture
def all_well(monkeypatch):
    """A machine on which nothing is to be fixed, and no torch is loaded."""
    monkeypatch.setattr(checks, "_version", lambda name: "1.0")
    monkeypatch.setattr(checks, "_wanted", lambda name: "")
    monkeypatch.setattr(checks, "_cuda_devices", lambda: ["NVIDIA H100, 80 GiB"])
    monkeypatch.setattr("llmctl.sampling.open.choose_engine", lambda: ("vllm", "a CUDA device is there"))
    models = SimpleNamespace(
        list_models=lambda: [SimpleNamespace(name="smollm2-135m", is_here=True, path="/cache/smollm2-135m")]
    )
    monkeypatch.setitem(sys.modules, "llmctl.models", models)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object() if name != "torchvision" else None)
    return monkeypatch


def find(done, name):
    document = json.loads(done.out)
    return next(check for check in document["checks"] if check["name"] == name)


def test_a_machine_with_everything_is_ready(llmctl, all_well):
    done = llmctl("doctor", "--json")
    assert done.code == 0 and json.loads(done.out)["is_ready"] is True
    assert find(done, "engine")["found"] == "auto selects vllm: a CUDA device is there"
    assert find(done, "gpu")["found"] == "NVIDIA H100, 80 GiB"
    assert find(done, "model smollm2-135m") == {
        "name": "model smollm2-135m", "status": "ok", "found": "/cache/smollm2-135m", "remedy": "",
    }  # fmt: skip
    done = llmctl("doctor")
    assert done.code == 0 and done.out.endswith("llmctl is ready\n")


def test_an_optional_package_that_is_missing_tells_how_to_install_it(llmctl, all_well):
    all_well.setattr(checks, "_version", lambda name: None if name == "bitsandbytes" else "1.0")
    done = llmctl("doctor", "--json")
    assert done.code == 0
    assert find(done, "bitsandbytes")["remedy"] == "pip install bitsandbytes, for QLoRA and quantized models"
    assert find(done, "bitsandbytes")["status"] == "optional"


def test_a_required_package_that_is_missing_is_told_and_ends_with_1(llmctl, all_well):
    all_well.setattr(checks, "_version", lambda name: None if name == "trl" else "1.0")
    done = llmctl("doctor", "--json")
    assert done.code == 1 and find(done, "trl")["status"] == "missing"


def test_a_version_that_does_not_fit_is_told(llmctl, all_well):
    all_well.setattr(checks, "_wanted", lambda name: ">=5.16,<5.20" if name == "transformers" else "")
    all_well.setattr(checks, "_version", lambda name: "5.20.1" if name == "transformers" else "1.0")
    done = llmctl("doctor", "--json")
    assert done.code == 1
    assert find(done, "transformers")["found"] == "5.20.1, but >=5.16,<5.20 is needed"


def test_wanted_versions_come_from_the_packages_own_metadata(monkeypatch):
    lines = ["torch>=2.6", "trl>=1.16,<1.17", "vllm>=0.20; extra == 'vllm'"]
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: lines)
    assert checks._wanted("trl") in (">=1.16,<1.17", "<1.17,>=1.16")
    assert checks._wanted("vllm") == ""
    assert checks._wanted("numpy") == ""


def test_a_torchvision_that_can_not_be_imported_is_told_with_the_cure(llmctl, all_well, tmp_path):
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    all_well.syspath_prepend(tmp_path)
    all_well.setattr("importlib.util.find_spec", lambda name: object())
    done = llmctl("doctor", "--json")
    found = find(done, "torchvision")
    assert done.code == 1 and found["status"] == "broken"
    assert "operator torchvision::nms does not exist" in found["found"]
    assert found["remedy"].startswith("pip uninstall torchvision")


def fail(*arguments):
    raise OSError("libcudart.so: cannot open\nshared object file")


def test_packages_that_break_in_any_way_are_findings_and_no_crash(llmctl, all_well):
    all_well.setattr(checks, "_cuda_devices", fail)
    all_well.setattr("llmctl.sampling.open.choose_engine", fail)
    all_well.setitem(sys.modules, "llmctl.models", SimpleNamespace(list_models=fail))
    done = llmctl("doctor", "--json")
    assert done.code == 1
    for name in ("gpu", "engine", "model smollm2-135m"):
        assert find(done, name)["status"] == "broken"
        assert "libcudart.so: cannot open shared object file" in find(done, name)["found"]
    done = llmctl("doctor")
    assert done.code == 1 and done.out.endswith("3 problems to fix\n")


def test_a_model_that_is_not_here_names_the_command_that_gets_it(llmctl, all_well):
    models = [SimpleNamespace(name="smollm2-135m", is_here=False, path=None)]
    all_well.setitem(sys.modules, "llmctl.models", SimpleNamespace(list_models=lambda: models))
    done = llmctl("doctor", "--json")
    assert done.code == 0
    assert find(done, "model smollm2-135m")["remedy"] == "llmctl models pull smollm2-135m"


def test_without_torch_the_doctor_still_answers(tmp_path):
    for name in ("torch", "vllm"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('broken on purpose')")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from llmctl.cli import main; main(['doctor', '--json'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and done.stderr == ""
    found = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert "broken on purpose" in found["gpu"]["found"] and found["gpu"]["status"] == "broken"
    assert found["python"]["status"] == Status.INFO.name.lower()
