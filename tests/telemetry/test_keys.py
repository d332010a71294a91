"""The column-wise index behaves as a dict."""

from __future__ import annotations

import numpy as np

from otel_ebpf_receiver.telemetry.columns import U64
from otel_ebpf_receiver.telemetry.keys import KeyIndex, Recent, distinct, mix, runs, text_keys


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


def test_the_key_of_a_text_depends_on_that_text_alone() -> None:
    """Equal texts have one key beside longer ones and in wider matrices, and different ones of any length have different keys."""
    texts = [b"x" * size + end for size in range(0, 250, 7) for end in (b"", b"a", b"b")]

    keys = [_text_keys([text], 8 * (len(text) // 8 + 1)) for text in texts]
    together = _text_keys(texts, 280)

    assert [int(key[0]) for key in keys] == together.tolist()
    assert len(set(together.tolist())) == len(set(texts))


def _text_keys(texts: list[bytes], width: int) -> U64:
    return text_keys(np.array(texts, f"S{width}").view(np.uint8).reshape(len(texts), width), np.array(list(map(len, texts))))


def test_recent_values_are_remembered_and_give_way() -> None:
    """What was told last for a key is found; of keys that share a place the later one is; nothing else ever is."""
    recent, random, told = Recent(6), np.random.default_rng(2), dict[int, int]()
    for _ in range(30):
        keys = np.unique(random.integers(1, 1 << 63, 40, dtype=np.uint64) << np.uint64(1))
        recent.put(keys, keys + np.uint64(1))
        told.update(zip((keys >> np.uint64(58)).tolist(), keys.tolist(), strict=True))

        values, missing = recent.find(keys)

        found = np.setdiff1d(np.arange(len(keys)), missing)
        assert sorted(keys[found].tolist()) == sorted(set(told.values()) & set(keys.tolist()))
        assert (values[found] == keys[found] + np.uint64(1)).all()
    recent.clear()
    assert len(recent.find(keys)[1]) == len(keys)


def test_runs_bound_equal_values() -> None:
    """Runs start where a value changes and end with the column."""
    assert runs(np.array([3, 3, 5, 7, 7])).tolist() == [0, 2, 3, 5]
    assert runs(np.array([], np.int64)).tolist() == [0]


def test_distinct_values_are_each_there_once_in_order() -> None:
    """As `np.unique` gives them, of any number of values."""
    random = np.random.default_rng(2)
    for count in (0, 1, 2, 1000):
        values = random.integers(-5, 20, count)

        found = distinct(values)

        assert found.tolist() == np.unique(values).tolist()
        assert found.dtype == values.dtype
