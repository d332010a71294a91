"""The bounded queue and its books."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

import pytest

from otel_ebpf_receiver.export.queue import Books, Payload, Queue


def payload(size: int, items: int = 1) -> Payload:
    """A payload of `size` bytes."""
    return Payload(b"x" * size, items)


def take(queue: Queue) -> Payload:
    """Takes what is known to be there."""
    taken = queue.take()
    assert taken is not None
    return taken


def test_the_oldest_goes_first_and_is_counted() -> None:
    """A full queue drops from its old end, item by item counted."""
    queue = Queue(100)

    for items in (1, 2, 3):
        queue.offer(payload(40, items))

    assert queue.books() == Books(received=6, dropped=1, queued=5, queued_bytes=80)
    assert take(queue).items == 2


def test_items_bound_the_queue_beside_bytes() -> None:
    """`max_items` drops the oldest although there is room in bytes."""
    queue = Queue(1000, 10)

    for _ in range(4):
        queue.offer(payload(1, 4))

    assert queue.books() == Books(received=16, dropped=8, queued=8, queued_bytes=2)


@pytest.mark.parametrize("big", [payload(101), payload(1, 11)])
def test_what_exceeds_a_bound_alone_is_dropped_without_driving_others_out(big: Payload) -> None:
    """A payload that never fits does not empty the queue for itself."""
    queue = Queue(100, 10)
    queue.offer(payload(50, 5))

    queue.offer(big)

    assert queue.books().dropped == big.items
    assert queue.books().queued == 5


def test_what_is_on_the_wire_counts_as_queued() -> None:
    """A taken payload is still in the books and in the bounds until it is settled."""
    queue = Queue(100)
    queue.offer(payload(60, 3))
    taken = take(queue)

    queue.offer(payload(60, 2))

    assert taken.items == 3
    assert queue.books() == Books(received=5, dropped=2, queued=3, queued_bytes=60, in_flight=3)
    assert not queue.is_idle


def test_a_payload_put_back_is_the_first_to_go() -> None:
    """A retried payload returns to the head and stays the oldest."""
    queue = Queue(100)
    queue.offer(payload(60, 3))
    queue.take()

    queue.retry()
    queue.offer(payload(60, 2))

    assert queue.books() == Books(received=5, dropped=3, queued=2, retried=3, queued_bytes=60)


def test_partial_success_divides_an_accepted_payload() -> None:
    """Rejected items are neither sent nor failed, and a server that rejects more than it got cannot unbalance the books."""
    queue = Queue(100)
    for rejected in (2, 99):
        queue.offer(payload(1, 5))
        queue.take()
        queue.accept(rejected)

    assert queue.books() == Books(received=10, sent=3, rejected=7)


def test_a_split_payload_keeps_its_place_and_its_items() -> None:
    """The parts stand where the whole stood."""
    queue = Queue(100)
    for items in (4, 7):
        queue.offer(payload(10, items))
    queue.take()

    queue.replace([payload(5, 1), payload(6, 3)])

    assert [take(queue).items] == [1]
    queue.accept()
    assert queue.books() == Books(received=11, sent=1, queued=10, queued_bytes=16)


def test_each_request_is_timed_once_from_its_first_try_to_its_fate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Repetitions and the pauses between them belong to the request; whichever way it ends, it is observed once, by what went wrong."""
    now_s = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    queue = Queue(100)

    def play(end: Callable[[], object], *, tries: int = 1, size: int = 60) -> None:
        nonlocal now_s
        queue.offer(payload(size, 3))
        for number in range(tries):
            take(queue)
            now_s += 1
            if number < tries - 1:
                queue.retry()
                now_s += 4
        end()

    play(queue.accept)
    play(queue.accept, tries=3)
    play(lambda: queue.accept(1))
    play(queue.fail, tries=2)
    play(lambda: queue.replace([payload(30, 2), payload(30, 1)]))
    for _ in range(2):
        take(queue)
        queue.accept()
    # While it waits for its next try there comes more than there is room for: another, which nobody has tried yet, is taken next.
    play(queue.retry)
    queue.offer(payload(60, 1))
    take(queue)
    now_s += 2
    queue.close()
    queue.accept()

    took = {error: (one.count, one.sum) for error, one in queue.books().took.items()}
    assert took == {"": (4, 12.0), "rejected": (1, 1.0), "failed": (2, 8.0), "too_large": (1, 1.0), "queue_full": (1, 1.0)}
    assert queue.books().is_balanced


def test_closing_gives_up_what_is_left_once() -> None:
    """What waits and what is on the wire is failed at close; a sender that comes back later changes nothing; late offers are dropped."""
    queue = Queue(100)
    for items in (1, 2):
        queue.offer(payload(10, items))
    queue.take()

    queue.close()
    queue.close()
    queue.accept()
    queue.retry()
    queue.fail()
    queue.offer(payload(1, 4))

    assert queue.books() == Books(received=7, failed=3, dropped=4)
    assert queue.take() is None


def test_a_sealed_queue_is_emptied_and_then_ends() -> None:
    """After seal() what waits can still be taken, and then take() says so instead of waiting."""
    queue = Queue(100)
    queue.offer(payload(10))

    queue.seal()

    assert queue.take() is not None
    queue.accept()
    assert queue.take() is None
    assert queue.flush(0)


def test_flush_waits_for_the_wire_too() -> None:
    """flush() is true only when nothing waits and nothing is being sent."""
    queue = Queue(100)
    queue.offer(payload(10, 0))
    queue.take()
    assert not queue.flush(0.01)

    threading.Timer(0.02, queue.accept).start()

    assert queue.flush(10)


def test_books_balance_at_every_moment_under_threads() -> None:
    """Two producers and a consumer with random outcomes: every copy of the books adds up, and so does the end."""
    queue = Queue(500, 40)
    seen: list[Books] = []

    def produce(seed: int) -> None:
        draw = random.Random(seed)
        for _ in range(2000):
            queue.offer(payload(draw.randrange(1, 60), draw.randrange(1, 9)))

    def consume() -> None:
        draw = random.Random(3)
        while (taken := queue.take()) is not None:
            outcome = draw.randrange(4)
            if outcome == 0:
                queue.accept(draw.randrange(3))
            elif outcome == 1 or taken.items < 2:
                queue.fail()
            elif outcome == 2:
                queue.retry()
            else:
                queue.replace([payload(len(taken.body), taken.items - 1), payload(1, 1)])
            seen.append(queue.books())

    consumer = threading.Thread(target=consume)
    producers = [threading.Thread(target=produce, args=(seed,)) for seed in (1, 2)]
    for thread in (consumer, *producers):
        thread.start()
    for thread in producers:
        thread.join()
    queue.seal()
    consumer.join()

    assert all(books.is_balanced and books.queued_bytes <= 500 and books.queued <= 40 for books in seen)
    assert queue.books().is_balanced
    assert queue.books().queued == 0
