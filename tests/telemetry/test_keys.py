"""The column-wise index behaves as a dict."""

from __future__ import annotations

import numpy as np

from otel_ebpf_receiver.telemetry.keys import KeyIndex, mix, runs


def test_the_index_finds_what_was_inserted() -> None:
    """Over many rounds of colliding keys, `number` gives what a dict would."""
    random = np.random.default_rng(1)
    index, expected = KeyIndex(16), dict[int, int]()
    for _ in range(50):
        # Few low bits differ, so that most keys want the same slots.
        keys = random.integers(0, 300, 500, dtype=np.uint64) << np.uint64(12)

        found = index.number(keys, lambda row, keys=keys: expected.setdefault(int(keys[row]), len(expected)))  # type: ignore[misc]

        assert found.tolist() == [expected[key] for key in keys.tolist()]
    assert len(index) == len(expected)
    assert (index.find(np.array([1, 5], np.uint64)) == -1).all()


def test_keys_depend_on_every_column_and_their_order() -> None:
    """A hundred thousand rows of small numbers have distinct keys, and swapped columns have others."""
    a, b = np.divmod(np.arange(100_000), 317)

    keys = mix(a, b)

    assert len(np.unique(keys)) == 100_000
    assert (keys != mix(b, a)).sum() > 99_000


def test_runs_bound_equal_values() -> None:
    """Runs start where a value changes and end with the column."""
    assert runs(np.array([3, 3, 5, 7, 7])).tolist() == [0, 2, 3, 5]
    assert runs(np.array([], np.int64)).tolist() == [0]
