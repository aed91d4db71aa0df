"""Seeded damage to bytes, texts and nested values."""

import copy
import math
import string
from random import Random
from typing import Any

ODD_NUMBERS = (0, -1, 1, 3, 7, 2**15, 2**31, 2**63, 10**30, -(10**9), 0.5, -0.0, 1e308, math.inf, math.nan)
ODD_VALUES = (
    None,
    True,
    False,
    "",
    " ",
    "x",
    "1",
    "nan",
    "\0",
    "a\nb",
    [],
    {},
    [[]],
    [None],
    {"a": None},
    [1, 2, 3],
)
ODD_TEXTS = (
    "<p>", "</p>", "<sys>", "<usr>", "<s>", "</s>", "<unk>", "<np>", "\0", "\n", "\r\n", '"', ",", ";", "\t", "\ufeff", "é",
    "\u202e", "\ud800", "{{", "%s", "..", "../../etc/passwd", "http://localhost/x.png", "data:image/png;base64,AAAA",
)  # fmt: skip


def odd_value(rng: Random) -> Any:
    """A number, text or container that is rarely expected."""
    pool = rng.choice((ODD_NUMBERS, ODD_VALUES, ODD_TEXTS))
    return copy.deepcopy(rng.choice(pool))


def damage_bytes(content: bytes, rng: Random, *, header: int = 0) -> bytes:
    """Flip, overwrite, cut, repeat or insert a few stretches of a file.

    Args:
        content: the file.
        rng: source of randomness.
        header: if above 0, half of the damage falls into that many first bytes.
    """
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        if not data:
            break
        reach = min(header, len(data)) if header and rng.random() < 0.5 else len(data)
        place = rng.randrange(max(reach, 1))
        match rng.randrange(7):
            case 0:
                data[place] ^= 1 << rng.randrange(8)
            case 1:
                data[place] = rng.randrange(256)
            case 2:
                end = place + rng.choice((2, 4, 8))
                data[place:end] = rng.choice((b"\0", b"\xff", b"\x7f", b"\x80")) * (end - place)
            case 3:
                del data[place : place + rng.choice((1, 4, 64, 1024))]
            case 4:
                data[place:place] = rng.randbytes(rng.choice((1, 4, 64)))
            case 5:
                data[place:place] = data[place : place + rng.choice((4, 64, 512))]
            case 6:
                del data[place + rng.choice((0, 1, 100)) :]
    return bytes(data)


def damage_text(text: str, rng: Random) -> str:
    """Insert, delete, repeat or replace a few stretches of a text."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        place = rng.randrange(len(text) + 1)
        end = place + rng.choice((0, 1, 5, 50))
        piece = rng.choice((*ODD_TEXTS, "", text[place:end] * 2, rng.choice(string.printable)))
        text = text[:place] + piece + text[end:]
    return text


def damage_value(value: Any, rng: Random) -> Any:
    """Replace, remove or add a few parts of a nested value of dicts and lists."""
    value = copy.deepcopy(value)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        places = list(_places(value))
        if not places:
            return odd_value(rng)
        holder, key = rng.choice(places)
        match rng.randrange(6):
            case 0 if isinstance(holder, dict):
                del holder[key]
            case 1 if isinstance(holder, dict):
                holder[rng.choice(("x", "", "type", "role", str(key).upper()))] = odd_value(rng)
            case 2 if isinstance(holder, list):
                holder.append(odd_value(rng))
            case 3 if isinstance(holder[key], str):
                holder[key] = damage_text(holder[key], rng)
            case 4 if isinstance(holder[key], list) and holder[key]:
                holder[key] = holder[key][:-1]
            case _:
                holder[key] = odd_value(rng)
    return value


def _places(value: Any):
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _places(value[key])
