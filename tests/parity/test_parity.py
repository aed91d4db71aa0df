"""Every published number that we reproduce, one test a case (``python -m tests.parity`` prints the table)."""

import pytest

from tests.parity.harness import TOLERANCE, golden, load_cases


@pytest.mark.parametrize("name", sorted(load_cases()))
def test_reproduces_the_published_numbers(name: str):
    checks = list(load_cases()[name](golden()))
    assert checks, f"case {name} compares nothing"
    failed = [f"{check.name}: {check.difference:.2e}" for check in checks if not check.passed]
    assert not failed, f"differs by more than {TOLERANCE:g} from the published implementation: {failed}"
