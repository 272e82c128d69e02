"""Remarks: counted by kind, and said in one line."""

from shared.media.remarks import Remark, Remarks, note_lines, problem_lines


def test_amounts_of_a_kind_add_up_and_are_said_once():
    cut, chosen = Remark("{} second(s) cut", is_problem=True), Remark("2 sound tracks: {first} is used")
    total = Remarks({cut: 0.25, chosen: 1}) + Remarks({Remark("{} second(s) cut", is_problem=True): 0.75})
    assert problem_lines(total) == ["1 second cut"] and note_lines(total) == ["2 sound tracks: {first} is used"]
    assert cut.say(12.5) == "12.5 seconds cut"
