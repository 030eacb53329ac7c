"""The house's own rules, which no linter knows: docs/explained/architecture.md and CONTRIBUTING.md state them."""

from __future__ import annotations

import ast
import io
import tokenize
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import convlab

CORE = Path(convlab.__file__).parent
FILES = sorted(CORE.rglob("*.py"))
TAILS = ("which ", "whose ", "of which ", "than ", "and ", "or ", "but ", "that ")


def trees() -> list[tuple[Path, ast.Module]]:
    return [(path, ast.parse(path.read_text())) for path in FILES]


def test_the_core_has_few_rooms() -> None:
    assert len([path for path in CORE.iterdir() if path.name != "__pycache__"]) <= 25


def test_no_file_is_long() -> None:
    assert [path.name for path in FILES if len(path.read_text().splitlines()) > 400] == []


def test_no_two_public_names_of_the_core_are_the_same() -> None:
    places = defaultdict(list)
    for path, tree in trees():
        if path.parent.name == "plot":  # what draws a thing bears its name
            continue
        for node in tree.body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
                places[node.name].append(str(path.relative_to(CORE)))
    assert {name: files for name, files in places.items() if len(files) > 1} == {}


def test_most_annotations_say_what_a_value_is() -> None:
    annotations: list[str] = []
    for _, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.AnnAssign):
                annotations.append(ast.unparse(node.annotation))
            if isinstance(node, ast.FunctionDef):
                arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                arguments += [argument for argument in (node.args.vararg, node.args.kwarg) if argument]
                given = [argument.annotation for argument in arguments] + [node.returns]
                annotations += [ast.unparse(annotation) for annotation in given if annotation]
    assert sum("Any" in annotation for annotation in annotations) <= len(annotations) / 10


def test_comments_can_be_read_alone() -> None:
    tails = []
    for path in FILES:
        for before, token in pairwise(tokenize.generate_tokens(io.StringIO(path.read_text()).readline)):
            goes_on = before.type in (tokenize.COMMENT, tokenize.NL) and before.line.lstrip().startswith("#")
            if token.type == tokenize.COMMENT and not goes_on and token.string[2:].startswith(TAILS):
                tails.append(f"{path.name}: {token.string}")
    assert tails == []
