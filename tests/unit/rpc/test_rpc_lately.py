from __future__ import annotations

from gleaner.app.lately import FOR_S, Lately


def test_what_was_found_is_known_for_a_moment_and_then_asked_again() -> None:
    clock = [100.0]
    lately: Lately[str, int] = Lately(lambda: clock[0])
    assert lately.get("key") is None
    lately.put("key", 1)
    clock[0] += FOR_S * 0.9
    assert lately.get("key") == 1
    clock[0] += FOR_S * 0.2
    assert lately.get("key") is None


def test_made_up_keys_cannot_fill_the_memory() -> None:
    lately: Lately[int, int] = Lately(lambda: 0.0)
    for number in range(5000):
        lately.put(number, number)
    assert lately.get(4999) == 4999
    assert lately.get(0) is None
