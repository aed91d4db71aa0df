"""Python blocks of the documentation run, page by page, on a tiny model and small images."""

import ast
import shutil

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from tests.fixtures.documents import PAGES, Block, blocks
from tests.fixtures.paths import CHECKPOINTS, REPOSITORY
from vividmed.data.adapters import base as adapters
from vividmed.errors import VividMedError

SAVED = CHECKPOINTS / "556ac31"
MODELS = {
    "outputs/vlm": "model",
    "outputs/vg": "model",
    "outputs/grg": "model",
    "base": "model",
    "outputs/vlm_lora": "adapter",
}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A folder with the models and images that the pages name."""
    folder = tmp_path_factory.mktemp("workspace")
    for name, source in MODELS.items():
        shutil.copytree(SAVED / source, folder / name)
    (folder / "stages").symlink_to(REPOSITORY / "stages")
    generator = np.random.default_rng(0)
    for name in ("image", "chest"):
        Image.fromarray(generator.integers(0, 255, (40, 48), dtype=np.uint8)).save(folder / f"{name}.png")
    for name, size in {"ct": (30, 28, 12), "abdomen": (30, 28, 12), "chest_ct": (350, 220, 66)}.items():
        voxels = generator.integers(0, 255, size, dtype=np.uint8).astype(np.int16)
        nib.save(nib.Nifti1Image(voxels, np.diag([-0.8, -0.8, 3.0, 1.0])), folder / f"{name}.nii.gz")
    return folder


@pytest.fixture(autouse=True)
def own_registry(monkeypatch):
    """Adapters that a page defines are forgotten afterwards."""
    monkeypatch.setattr(adapters, "_REGISTRY", {})


def run(block: Block, names: dict) -> None:
    """Run a block statement by statement, and check what its comments state.

    A comment that is a Python literal states the value of its line; one that begins with the name of our error states
    that the line raises it.
    """
    tree = ast.parse(block.text, str(block))
    if block.marker == "not run":
        return
    if block.marker == "setup":
        exec(block.note, names)
    lines = block.text.splitlines()
    for statement in tree.body:
        if block.marker == "imports only" and not isinstance(statement, ast.Import | ast.ImportFrom):
            continue
        comment = lines[statement.end_lineno - 1].partition("  # ")[2]
        module = ast.Module([statement], [])
        if comment.startswith("VividMedError"):
            with pytest.raises(VividMedError) as caught:
                exec(compile(module, str(block), "exec"), names)
            for part in comment.removeprefix("VividMedError:").split("..."):
                assert part.strip() in str(caught.value)
        elif isinstance(statement, ast.Expr) and (stated := literal(comment)) is not None:
            value = eval(compile(ast.Expression(statement.value), str(block), "eval"), names)
            assert value == stated, f"{block}: {ast.unparse(statement)} gives {value!r}"
        else:
            exec(compile(module, str(block), "exec"), names)


def literal(comment: str):
    """The value that a comment states, before a colon if there is one; None for prose."""
    for text in (comment, comment.partition(": ")[0]):
        try:
            return ast.literal_eval(text)
        except (ValueError, SyntaxError):
            continue
    return None


@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: page.stem
)
def test_python_blocks_of_a_page_run_in_order(page, workspace, monkeypatch):
    monkeypatch.chdir(workspace)
    names: dict = {"__name__": "__main__"}
    for block in blocks(page, "python"):
        try:
            run(block, names)
        except Exception as error:
            error.add_note(f"in the block at {block}")
            raise


def test_wrong_value_in_a_comment_is_found():
    block = Block(REPOSITORY / "README.md", 1, "python", "1 + 1  # 3\n", None, "")
    with pytest.raises(AssertionError, match="gives 2"):
        run(block, {})
