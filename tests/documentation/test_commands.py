"""Commands of the documentation are understood by the programs that they name."""

import pytest

from tests.fixtures.documents import PAGES, check_command, commands, flags, inline_commands, known_flags
from tests.fixtures.paths import REPOSITORY
from vividmed.errors import VividMedError

OTHER_FLAGS = {"--require-hashes"}  # of pip


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    # Parsing must not depend on, or leave, anything in the folder of a real run.
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")


def refusal(words: list[str]) -> str | None:
    """Why the program would refuse a command; None if it would not."""
    try:
        check_command(words)
    except SystemExit as error:
        return None if error.code in (0, None) else "wrong arguments"
    except (AssertionError, ImportError, VividMedError) as error:
        return f"{type(error).__name__}: {error}"
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_of_a_page_are_understood(page, capsys):
    refused = {place: why for place, words in commands(page) if (why := refusal(words))}
    assert not refused, capsys.readouterr().err


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_within_sentences_name_programs_that_exist(page, capsys):
    refused = {}
    for place, words in inline_commands(page):
        if words[0] in ("vividmed", "python") and "tests.parity" not in words:
            # A sentence may leave out arguments that the program needs.
            words = [*words, "--help"]
        if words[:2] == ["accelerate", "launch"] and len(words) < 4:
            words = [*words, "stages/train.py", "--stage", "vlm"]
        if why := refusal(words):
            refused[place] = why
    assert not refused, capsys.readouterr().err


def test_flags_that_pages_name_exist():
    known = known_flags() | OTHER_FLAGS
    assert "--max_length" in known
    assert "--accept" in known
    unknown = {page.name: names - known for page in PAGES if (names := flags(page)) - known}
    assert not unknown


@pytest.mark.parametrize(
    "command",
    [
        "make nothing",
        "pip install vividmed[nothing]",
        "accelerate launch stages/train.py --stage vlm --no_such_argument 1",
        "vividmed nothing",
        "python data_scripts/prepare.py amos22 --no-such-argument",
        "python nothing.py",
        "unknown program",
    ],
)
def test_wrong_command_would_be_found(command):
    assert refusal(command.split())
