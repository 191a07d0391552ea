"""What was said last of each subject, against a plain list of what has been said."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from outlast.extend import Once


def test_a_key_is_news_until_it_is_said() -> None:
    once = Once()
    assert once.said() is None
    assert once, "`given or Once()` must not take a new one for none at all"
    assert once.news("a")
    assert not once.news("a")
    assert once.said() == "a"


def test_a_changed_key_is_news_and_so_is_the_one_before_it() -> None:
    once = Once()
    assert [once.news(key) for key in ("a", "b", "b", "a")] == [True, True, False, True]


def test_none_is_a_key_like_others() -> None:
    once = Once()
    assert [once.news(key) for key in (None, None, 1.0, None)] == [True, False, True, True]


def test_what_is_over_is_news_again_and_it_is_over_once() -> None:
    once = Once()
    assert not once.clear()
    assert once.news()
    assert once.clear()
    assert not once.clear()
    assert once.news()


def test_subjects_know_nothing_of_each_other() -> None:
    once = Once()
    assert once.news(subject="a")
    assert once.news(subject="b")
    assert once.clear("a")
    assert not once.news(subject="b")
    assert once.news(subject="a")
    assert once.subjects == 2


def test_the_subject_without_news_for_longest_is_forgotten_first() -> None:
    once = Once(2)
    assert once.news("x", subject="a")
    assert once.news("x", subject="b")
    assert once.news("y", subject="a")
    assert once.news("x", subject="c")
    assert once.said("b") is None
    assert not once.news("y", subject="a")
    assert once.subjects == 2


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([None, 1, 2, "over"]))))
def test_nothing_is_said_twice_in_a_row_of_one_subject(steps: list[tuple[str, int | str | None]]) -> None:
    once, last = Once(), dict[str, int | str | None]()
    for subject, key in steps:
        if key == "over":
            assert once.clear(subject) == (subject in last)
            last.pop(subject, None)
        else:
            assert once.news(key, subject=subject) == (subject not in last or last[subject] != key)
            last[subject] = key
        assert once.said(subject) == last.get(subject)
