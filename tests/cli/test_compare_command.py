"""`convlab compare` as one uses it, in a process of its own."""

from __future__ import annotations

import html
import json
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from convlab import compare
from convlab.models.compare.report import as_dict, comparison_page

A = """
import torch
from torch import nn
torch.manual_seed(0)
model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 3, stride=2, padding=1))
def make(): return model
number = 3
"""
B = """
import flax.linen as nn
from a import model as theirs
def model(padding="SAME"):
    def copied(conv):
        return {"kernel": conv.weight.detach().numpy().transpose(2, 3, 1, 0), "bias": conv.bias.detach().numpy()}
    layers = [nn.Conv(4, (3, 3)), nn.relu, nn.Conv(2, (3, 3), strides=2, padding=padding)]
    return nn.Sequential(layers).bind({"params": {"layers_0": copied(theirs[0]), "layers_2": copied(theirs[2])}})
right = model(padding=1)
pair = right.unbind()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.py").write_text(A)
    (tmp_path / "b.py").write_text(B)
    (tmp_path / "exits.py").write_text("import sys; sys.exit(0)")
    (tmp_path / "broken.py").write_text("model = (")
    (tmp_path / "junk.zip").write_bytes(b"PK\x03\x04 and no more")
    np.save(tmp_path / "huge.npy", np.zeros(123456, "<f4"))
    claimed = (tmp_path / "huge.npy").read_bytes()[:200].replace(b"(123456,), }    ", b"(999999999999,)}")
    (tmp_path / "huge.npy").write_bytes(claimed)
    return tmp_path


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from convlab.cli.main import main; main()", "compare", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


TWO = """
import torch
from torch import nn
torch.manual_seed(0)
class Two(nn.Module):
    def __init__(self, swapped):
        super().__init__()
        self.swapped, self.left, self.right = swapped, nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3, bias=False)
    def forward(self, left, right):
        left, right = (right, left) if self.swapped else (left, right)
        return self.left(left) - self.right(right)
first = Two(False)
second = Two(True)
second.load_state_dict(first.state_dict())
"""


def test_models_that_are_the_same(folder):
    done = run(folder, "a.py:make", "b.py:right", "--json", "found.json")
    assert done.returncode == 0, done.stderr
    assert "The models compute the same results." in done.stdout
    content = json.loads((folder / "found.json").read_text())
    assert content["same"]
    assert [layer["kind"] for layer in content["layers"]] == ["conv2d", "activation", "conv2d"]
    assert max(layer["errors_of_b"]["result"] for layer in content["layers"]) <= 1
    assert content["wholes"] == [0, 0]


def test_a_linen_module_with_its_variables_is_a_model(folder):
    done = run(folder, "a.py:make", "b.py:pair")
    assert done.returncode == 0, done.stderr
    assert "The models compute the same results." in done.stdout


def test_models_that_diverge(folder):
    done = run(folder, "a.py:model", "b.py:model", "--html", "report.html", "--seed", "3")
    assert done.returncode == 1, done.stderr
    verdict = "The outputs diverge at layer '2' (torch) and layer 'layers_2' (jax)."
    assert verdict in done.stdout
    assert "padding=((1, 1), (1, 1))" in done.stdout
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert verdict in html.unescape(page)
    assert "convlab compare a.py:model b.py:model --seed 3" in page
    assert page.count("<img") == 1


def test_models_of_which_only_parts_can_be_compared(folder):
    (folder / "two.py").write_text(
        "import torch\nfrom torch import nn\ntorch.manual_seed(0)\n"
        "class Two(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n        self.conv = nn.Conv2d(3, 2, 3)\n"
        "    def forward(self, x, *, y):\n        return self.conv(x) + self.conv(y)\n"
        "model = Two()\n"
    )
    done = run(folder, "two.py:model", "two.py:model", "--json", "found.json", "--html", "report.html")
    assert done.returncode == 3, done.stderr
    assert "Only parts were compared, and no difference was found" in done.stdout
    assert json.loads((folder / "found.json").read_text())["same"] is None
    page = (folder / "report.html").read_text(encoding="utf-8")
    for text in (done.stdout, page):
        assert "the same" not in text


def test_each_model_has_the_modules_beside_it(folder):
    for name, padding in (("theirs", 1), ("mine", 0)):
        (folder / name).mkdir()
        layer = f"nn.Conv2d(1, 1, 3, padding={padding})"
        (folder / name / "blocks.py").write_text(f"from torch import nn\ndef make(): return {layer}\n")
        (folder / name / "m.py").write_text("import torch, blocks\ntorch.manual_seed(0)\nmodel = blocks.make()\n")
    done = run(folder, "theirs/m.py:model", "mine/m.py:model")
    assert done.returncode == 1
    assert "The first pads 1 on each side, the second nothing" in done.stdout


def test_the_second_model_in_another_process(folder):
    """That process finds JAX, and the first one doesn't look for it."""
    (folder / "c.py").write_text(
        "import torch, os\nfrom a import model\nprint('noise')\nmodel = torch.nn.Sequential(model[0], model[2])\n"
        "class Dies(torch.nn.Conv2d):\n    def _conv_forward(self, *args): os._exit(3)\n"
        "dies = torch.nn.Sequential(Dies(3, 4, 3), torch.nn.ReLU())\n"
    )
    same = run(folder, "a.py:model", "b.py:right", "--python", sys.executable, "--html", "report.html")
    assert same.returncode == 0, same.stderr
    assert "second: b.py:right (jax)" in same.stdout
    assert "The models compute the same results." in same.stdout
    assert f"--python {sys.executable}" in (folder / "report.html").read_text()
    other = run(folder, "a.py:model", "b.py:model", "--python", sys.executable)
    assert other.returncode == 1, other.stderr
    assert "padding=((1, 1), (1, 1))" in other.stdout
    shorter = run(folder, "a.py:model", "c.py:model", "--python", sys.executable)
    assert shorter.returncode == 1, shorter.stderr
    assert "The second model has no relu: the first has '1' behind '0'." in shorter.stdout
    np.save(folder / "even.npy", np.random.default_rng(0).normal(size=(1, 3, 8, 8)).astype("float32"))
    given = run(folder, "a.py:model", "b.py:right", "--python", sys.executable, "--inputs", "even.npy")
    assert given.returncode == 0, given.stderr
    for model, python, reason in (
        ("c.py:nope", sys.executable, "c.py:nope: there is no 'nope' in it"),
        ("c.py:model", "/no/such/python", "can't be run as a Python"),
        ("c.py:dies", sys.executable, "ended with status 3"),
    ):
        done = run(folder, "a.py:model", model, "--python", python)
        assert done.returncode == 2
        assert reason in done.stderr
        assert "Traceback" not in done.stderr


def test_several_results_in_another_process(folder):
    (folder / "heads.py").write_text(
        "import copy, torch\nfrom torch import nn\ntorch.manual_seed(0)\n"
        "class Heads(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n"
        "        self.stem, self.boxes, self.scores = nn.Conv2d(3, 2, 3), nn.Conv2d(2, 4, 1), nn.Linear(2, 5)\n"
        "    def forward(self, x):\n        x = self.stem(x)\n"
        "        return {'scores': self.scores(x.mean((2, 3))), 'boxes': self.boxes(x)}\n"
        "model = Heads().eval()\nother = copy.deepcopy(model)\nother.scores.bias.data += 1\n"
    )
    same = run(folder, "heads.py:model", "heads.py:model", "--python", sys.executable)
    assert same.returncode == 0, same.stderr
    other = run(folder, "heads.py:model", "heads.py:other", "--python", sys.executable)
    assert other.returncode == 1, other.stderr
    assert "The outputs diverge at layer 'scores' (torch) and layer 'scores' (torch)." in other.stdout


def test_inputs_of_ones_own(folder):
    np.save(folder / "odd.npy", np.random.default_rng(0).normal(size=(1, 3, 7, 7)).astype("float32"))
    assert (
        run(folder, "a.py:model", "b.py:model", "--inputs", "odd.npy").returncode == 0
    )  # For odd sizes the models agree.
    np.save(folder / "even.npy", np.random.default_rng(0).normal(size=(1, 3, 8, 8)).astype("float32"))
    assert run(folder, "a.py:model", "b.py:model", "--inputs", "even.npy").returncode == 1


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["a.py", "a.py:model"], "expected file.py:name"),
        (["a.py:nope", "a.py:model"], "there is no 'nope' in it"),
        (["gone.py:model", "a.py:model"], "no such file"),
        (["nomodule:model", "a.py:model"], "No module named"),
        (["exits.py:model", "a.py:model"], "its own code fails (SystemExit"),
        (["broken.py:model", "a.py:model"], "its own code fails (SyntaxError"),
        (["a.py:number", "a.py:model"], "a: got int"),
        (["a.py:model", "a.py:model", "--inputs", "a.py"], "isn't an array of numbers"),
        (["a.py:model", "a.py:model", "--inputs", "junk.zip"], "isn't an array of numbers"),
        (["a.py:model", "a.py:model", "--inputs", "huge.npy"], "isn't an array of numbers"),
        (["a.py:model", "a.py:model", "--html", "no/report.html"], "can't be written there"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(folder, arguments, reason):
    before = sorted(folder.iterdir())
    done = run(folder, *arguments)
    assert done.returncode == 2
    assert reason in done.stderr
    assert "Traceback" not in done.stderr
    assert [each for each in sorted(folder.iterdir()) if each.name != "__pycache__"] == before


def test_the_page_is_well_formed_and_tells_names_from_markup():
    from convlab import numpy as lab

    layers = [lab.Conv2D(3, out_channels=2, in_channels=1, padding=pads, seed=0) for pads in (0, 1)]
    comparison = compare(*layers)
    for row in comparison.rows:
        row.a = "<script>alert(1)</script>"
    open_tags: list[str] = []

    class Checked(HTMLParser):
        def handle_starttag(self, tag, attributes):
            assert tag != "script"
            if tag not in ("meta", "link", "img", "source", "br", "path"):
                open_tags.append(tag)

        def handle_endtag(self, tag):
            if tag not in ("path",):
                assert open_tags.pop() == tag

    page = comparison_page(comparison, "<b>a", "b", "convlab compare a b")
    Checked().feed(page)
    assert not open_tags
    assert "&lt;script&gt;" in page
    assert json.loads(json.dumps(as_dict(comparison)))["same"] is False


@pytest.mark.parametrize("elsewhere", [False, True])
def test_several_inputs(folder, elsewhere):
    """Random images, and an `.npz` of them by their names; in another process, too."""
    (folder / "two.py").write_text(TWO)
    further = ["--python", sys.executable] if elsewhere else []
    done = run(folder, "two.py:first", "two.py:first", *further)
    assert done.returncode == 0, done.stderr
    images = np.random.default_rng(0).normal(size=(2, 1, 3, 8, 8)).astype("float32")
    np.savez(folder / "both.npz", left=images[0], right=images[1])
    done = run(folder, "two.py:first", "two.py:second", "--inputs", "both.npz", *further)
    assert done.returncode == 1, done.stderr
    assert "wapped inputs: the second model takes 'left' as the first takes 'right'" in " ".join(done.stdout.split())
    np.savez(folder / "other.npz", left=images[0], up=images[1])
    done = run(folder, "two.py:first", "two.py:first", "--inputs", "other.npz", *further)
    assert "got arrays for left and up, expected left and right" in " ".join((done.stdout + done.stderr).split())
