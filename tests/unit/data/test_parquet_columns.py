"""Primitive Arrow arrays as numpy arrays, without a copy."""

from __future__ import annotations

import pyarrow as pa
import pytest

from dpgmm_dist.data.parquet_columns import numbers, validity


@pytest.mark.parametrize(
    "kind",
    [pa.int8(), pa.uint16(), pa.int32(), pa.int64(), pa.uint64(), pa.float16(), pa.float64()],
)
def test_numbers_are_views_of_sliced_arrays(kind):
    array = pa.array([1, 2, None, 4], kind)
    values = numbers(array.slice(1, 3))
    assert values[0] == 2
    assert values[2] == 4
    assert validity(array.slice(1, 3)).tolist() == [True, False, True]
    assert validity(array.slice(0, 2)) is None
    assert len(numbers(array.slice(0, 0))) == 0
