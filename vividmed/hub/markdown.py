"""Text of others, made safe for the Markdown and the YAML of a card."""

import re
from typing import Any


def one_line(value: Any) -> str:
    """Join the lines of a text and drop control characters, so that it cannot end the place it stands in."""
    text = "".join(character if character.isprintable() else " " for character in str(value))
    return " ".join(text.split())


def table_cell(value: Any) -> str:
    """Escape a text so that it stays within one cell of a Markdown table."""
    return one_line(value).replace("\\", "\\\\").replace("|", "\\|")


def fenced(text: str) -> str:
    """Put a text of several lines into a code block that no backticks within it can close."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text.strip()}\n{fence}"
