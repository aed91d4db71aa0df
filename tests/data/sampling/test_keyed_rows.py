from tests.fixtures.training import make_rows
from vividmed.data.sampling.keyed_rows import KeyedRows, SampleKey


def test_training_rows_carry_their_epoch_and_evaluation_rows_none():
    rows = KeyedRows(make_rows(range(3)), pad_to_multiple_of=4)
    assert len(rows) == 4
    trained, evaluated, repeated = rows[SampleKey(5, 1)], rows[1], rows[3]
    assert (trained["epoch"], trained["index"], trained["id"]) == (5, 1, "row-1")
    assert (evaluated["epoch"], evaluated["repeated"]) == (None, False)
    assert (repeated["id"], repeated["repeated"]) == ("row-0", True)
