"""Trees of replies: one record each; what is ranked below, deleted or not approved is not learned, and is counted."""

from __future__ import annotations

import warnings

import pytest

from alpaca_lora import lint
from alpaca_lora.data.record import Conversation, Record
from alpaca_lora.data.records import load_records
from alpaca_lora.data.records.reader import RowReader
from alpaca_lora.data.records.row_problem import RowProblem
from alpaca_lora.errors import DataError


def message(role, text, *replies, **more):
    return {"message_id": text, "role": role, "text": text, "lang": "en", "replies": [*replies], **more}


def ask(text, *replies, **more):
    return message("prompter", text, *replies, **more)


def answer(text, *replies, **more):
    return message("assistant", text, *replies, **more)


def tree(root, **more):
    return {"message_tree_id": "1", "tree_state": "ready_for_export", "prompt": root, **more}


def user(text):
    return {"role": "user", "content": text}


def said(text):
    return {"role": "assistant", "content": text}


BRANCHED = ask(
    "a",
    answer("b", ask("c", answer("d")), ask("e", answer("f"), answer("g"))),
    answer("h", ask("i", answer("j"))),
)


@pytest.mark.parametrize("row", [tree(BRANCHED), BRANCHED])
def test_a_tree_is_one_record_with_every_answer_once(row):
    (found,) = load_records([row]).records
    assert found == Conversation(
        (user("a"), said("b"), user("c"), said("d"), user("e"), said("f"), said("g"), said("h"), user("i"), said("j")),
        trained=(1, 3, 5, 6, 7, 9),
        parents=(-1, 0, 1, 2, 1, 4, 4, 0, 7, 8),
    )
    paths = {"".join(one["content"] for one in found.upto(place)) for place in found.trained}
    assert paths == {"ab", "abcd", "abef", "abeg", "ah", "ahij"}


def test_a_tree_of_one_exchange_is_a_record():
    assert load_records([tree(ask("a", answer("b")))]).records == [Record("a", "", "b")]


def load_told(row):
    """The record, and what is said of answers that are not learned."""
    with pytest.warns(UserWarning, match="answers of its trees are not learned") as caught:
        found = load_records([row])
    assert len(caught) == 1 and caught[0].filename == __file__
    assert str(caught[0].message).startswith(f"<list>: {sum(found.unlearned.values())} answers")
    return found.records[0], found.unlearned


def test_only_the_best_ranked_answer_is_learned_and_others_are_context():
    worse = answer("w", ask("x", answer("y")), rank=1)
    found, unlearned = load_told(tree(ask("a", worse, answer("b", rank=0), answer("c", rank=2), answer("d"))))
    assert unlearned == {"not ranked best": 3}
    assert found.messages == (user("a"), said("w"), user("x"), said("y"), said("b"))
    assert found.trained == (3, 4) and found.parents == (-1, 0, 1, 2, 0)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"deleted": True}, "deleted"),
        ({"review_result": False}, "refused in review"),
        ({"text": " "}, "empty"),
    ],
)
def test_what_was_taken_back_is_left_out_with_its_replies(bad, reason):
    gone = {**answer("x", ask("y", answer("z")), rank=0), **bad}
    found, unlearned = load_told(tree(ask("a", gone, answer("b", ask("c", answer("d")), rank=1))))
    assert unlearned == {reason: 1, "below messages that are left out": 1}
    assert found == Conversation((user("a"), said("b"), user("c"), said("d")), (1, 3), parents=(-1, 0, 1, 2))


def test_answers_that_nobody_reviewed_are_context_only():
    row = tree(ask("a", answer("b", ask("c", answer("d", review_result=True)), review_result=None)))
    found, unlearned = load_told(row)
    assert unlearned == {"not reviewed": 1}
    assert found == Conversation((user("a"), said("b"), user("c"), said("d")), (3,), parents=(-1, 0, 1, 2))


@pytest.mark.parametrize(
    "row",
    [
        tree(ask("a")),
        tree(ask("a", answer("b", deleted=True))),
        tree(ask("a", answer("b"), deleted=True)),
        tree(ask("a", answer("b")), tree_state="aborted_low_grade"),
        tree(ask("a", answer("b")), tree_state="halted_by_moderator"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*answers of its trees are not learned")
def test_trees_of_which_nothing_may_be_learned_are_dropped_up_to_a_share(row):
    good = tree(ask("a", answer("b")))
    with pytest.warns(UserWarning, match=r"1 of 21 records .*numbers 2\) have no answer that may be learned; they are"):
        found = load_records([good, row, *[good] * 19])
    assert len(found) == 20 and found.dropped == {"no answer to learn": [2]}
    with pytest.raises(DataError, match=r"1 of 2 records .* have no answer that may be learned; at most 5% may be"):
        load_records([good, row])


@pytest.mark.parametrize(
    ("root", "message"),
    [
        (answer("a"), "the assistant begins this tree"),
        (ask("a", message("critic", "b")), "a message is from 'critic'; known are 'prompter'"),
        (ask("a", {"role": "assistant"}), "a message has no 'text'; its keys are 'role'"),
        (ask("a", "b"), "a reply is str, not an object"),
        (ask("a", {**answer("b"), "replies": "c"}), "'replies' is str, not a list"),
        (ask("a", answer(5)), r"'text' is 5 \(int\), not a string"),
    ],
)
def test_trees_that_cannot_be_read_name_their_record(root, message):
    with pytest.raises(DataError) as caught:
        load_records([tree(ask("a", answer("b"))), tree(root)])
    first, why, last = str(caught.value).splitlines()
    assert first == "<list>: 1 of 2 rows are trees of replies that cannot be read."
    assert "first record 2" in why and "mend or remove these" in last
    with pytest.raises(RowProblem, match=message):
        RowReader().read(tree(root))


def test_other_keys_of_messages_are_bookkeeping():
    root = ask("a", answer("b", emojis={"+1": 2}, labels={"spam": 0}), review_count=3, review_result=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_records([tree(root, tree_state="ready_for_export")]).unread == {"message_tree_id": 1}
        assert lint([tree(root)]).findings == []


def test_trees_of_any_depth_are_read():
    root = answer("last")
    for number in range(5_000):
        root = (ask if number % 2 == 0 else answer)(str(number), root)
    root = root if root["role"] == "prompter" else ask("first", root)
    (found,) = load_records([root]).records
    assert len(found.upto(found.trained[-1])) == len(found.messages)
