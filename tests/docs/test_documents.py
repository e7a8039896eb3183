"""README.md, docs/ and what lies around them: examples that need no engine, and what they name."""

import ast
import json
import re

import pytest
from helpers import documents
from helpers.documents import ROOT

PAGES = [*documents.PAGES, ROOT / "CONTRIBUTING.md"]
TEXTS = {page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8") for page in PAGES}


@pytest.mark.parametrize("page", documents.pages(engine=False), ids=lambda page: page.stem)
def test_examples_run(page):
    namespace = {"__name__": "example"}
    for example in documents.examples(page):
        example.run(namespace)


def test_a_translation_has_the_code_of_its_original():
    translations = [page for page in documents.PAGES if documents.original(page)]
    assert len(translations) >= 5
    for page in translations:
        assert documents.code(page) == documents.code(documents.original(page)), page


def test_every_engine_has_examples_in_start_here():
    engines = {example.engine for example in documents.examples(ROOT / "docs" / "start.md")}
    assert engines == {"jax", "torch", "tensorflow", None}


@pytest.mark.parametrize("page", TEXTS)
def test_commands_that_it_names_exist(page):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"(?:^ *|`)make ([a-z][a-z0-9-]*)", TEXTS[page], flags=re.MULTILINE)
    for target in targets:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), f"make {target}"
    cli = (ROOT / "src/sepconv/cli.py").read_text(encoding="utf-8")
    shell = re.findall(r"^ *```sh\n(.*?)```", TEXTS[page], flags=re.MULTILINE | re.DOTALL)
    text = TEXTS[page] + "".join(f"    {line}\n" for block in shell for line in block.splitlines())
    for command in re.findall(r"(?:^ {4,}|`)sepconv ([a-z]+)", text, flags=re.MULTILINE):
        assert f"sepconv {command}" in cli, f"sepconv {command}"


@pytest.mark.parametrize("page", TEXTS)
def test_files_that_it_names_exist(page):
    for path in re.findall(
        r"`((?:src|native|docs|tests|examples|benchmarks|tools)/[\w/.]*)`", TEXTS[page]
    ):
        assert (ROOT / path).exists(), path


def test_what_the_makefile_its_scripts_and_ci_run_is_there():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    workflows = [path.read_text() for path in (ROOT / ".github/workflows").glob("*.yml")]
    targets = re.findall(r"\bmake ([a-z][a-z0-9-]*)$", "\n".join(workflows), flags=re.MULTILINE)
    assert {"test", "native-test", "sanitize", "tidy", "aarch64", "coverage"} <= set(targets)
    for target in targets:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), f"make {target}"
    scripts = [path.read_text() for path in (ROOT / "tools").glob("*.sh")]
    paths = re.findall(
        r"\b((?:tools|tests|benchmarks)/[\w/]+(?:\.\w+)?)(?![\w/*.$%{])",
        "\n".join([makefile, *scripts]),
    )
    assert len(set(paths)) > 20
    for path in paths:
        built = path.startswith("tests/native/sepconv_")  # below a folder of build/
        assert built or (ROOT / path).exists(), path


def test_every_folder_of_tests_is_run():
    script = (ROOT / "tools/test.sh").read_text(encoding="utf-8")
    run = set(re.findall(r"\btests/(\w+)", script))
    # `make gpu-test` runs those that need a GPU.
    assert run == {path.parent.name for path in ROOT.glob("tests/*/test_*.py")} - {"gpu"}


@pytest.mark.parametrize("page", TEXTS)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", TEXTS[page]):
        if "://" not in target:
            assert ((ROOT / page).parent / target).exists(), target


def test_every_page_is_in_the_site():
    site = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for page in TEXTS:
        if page.startswith("docs/"):
            assert f" {page.removeprefix('docs/')}\n" in site, page


def test_every_public_name_is_in_the_reference():
    reference = "\n".join(TEXTS[page] for page in TEXTS if page.startswith("docs/reference/"))
    modules = ("__init__", "layers/__init__", "jax", "torch", "tensorflow", "reference")
    for module in modules:
        for name in public_names(ROOT / "src/sepconv" / f"{module}.py"):
            whole = module == "reference"  # rendered with all its members
            assert whole or re.search(rf"\b{name}\b", reference), f"{name} of {module}"
    assert "::: sepconv.reference\n" in reference


def public_names(path):
    """A module's `__all__`, and in the package's own what it imports lazily."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if getattr(target, "id", "") in ("__all__", "_LAZY", "_MODELS", "_OF_ENGINES"):
            yield from ast.literal_eval(node.value)


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.ipynb")), ids=lambda p: p.stem)
def test_a_notebook_shows_a_whole_run(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert not any(o["output_type"] == "error" for cell in code for o in cell["outputs"])
    assert f"({path.name})" in (ROOT / "examples/README.md").read_text(encoding="utf-8")


def test_folders_are_in_the_architecture():
    text = TEXTS["docs/architecture.md"]
    for top in ("src/sepconv", "native", "tests"):
        for folder in (ROOT / top).iterdir():
            if folder.is_dir() and folder.name != "__pycache__":
                assert f"{folder.name}/" in text, folder


def test_the_version_is_one():
    package = (ROOT / "src/sepconv/__init__.py").read_text(encoding="utf-8")
    version = re.search(r'^__version__ = "(.*)"', package, re.M)[1]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"^## (\S+)", changelog, re.M)[1] == version
