"""Persons held out of a part, and labels made worse."""

from dataclasses import replace

import numpy as np
import pytest

from hdm.data import hold_out, load_persons, with_label_noise
from hdm.errors import InputError


def test_held_out_pictures_and_the_others_are_the_whole(small_data):
    data = load_persons(small_data, "train")
    kept, held = hold_out(data, 0.4)
    numbers = [{person.annotation_id for person in part.persons} for part in (kept, held, data)]
    assert numbers[0] | numbers[1] == numbers[2] and not numbers[0] & numbers[1]
    pictures = [{person.image_id for person in part.persons} for part in (kept, held)]
    assert not pictures[0] & pictures[1]


def test_what_is_held_out_depends_on_the_picture_alone(small_data):
    data = load_persons(small_data, "train")
    _, held = hold_out(data, 0.4)
    _, of_half = hold_out(data.head(len(data.persons) // 2), 0.4)
    known = {person.annotation_id for person in data.persons[: len(data.persons) // 2]}
    assert [person.annotation_id for person in of_half.persons] == [
        person.annotation_id for person in held.persons if person.annotation_id in known
    ]


def test_a_smaller_share_is_part_of_a_larger_one(small_data):
    data = load_persons(small_data, "train")
    few, many = ({person.image_id for person in hold_out(data, share)[1].persons} for share in (0.2, 0.6))
    assert few < many


def test_a_share_is_what_it_says(small_data):
    person = load_persons(small_data, "train").persons[0]
    data = replace(
        load_persons(small_data, "train"),
        persons=tuple(replace(person, image_id=number, annotation_id=number) for number in range(4000)),
    )
    share = len(hold_out(data, 0.2)[1].persons) / 4000
    assert abs(share - 0.2) < 4 * np.sqrt(0.2 * 0.8 / 4000)  # four standard deviations of a fair draw


@pytest.mark.parametrize("share", [1e-9, 1 - 1e-9])
def test_a_share_that_leaves_nobody_on_one_side_is_refused(small_data, share):
    with pytest.raises(InputError, match="hold out more or less"):
        hold_out(load_persons(small_data, "train"), share)


def test_label_noise_has_its_standard_deviation_and_repeats(small_data):
    person = replace(load_persons(small_data, "train").persons[0], box=(0.0, 0.0, 50.0, 200.0))
    data = replace(
        load_persons(small_data, "train"),
        persons=tuple(replace(person, annotation_id=number) for number in range(500)),
    )
    noisy = with_label_noise(data, 0.03)
    shift = np.stack([each.joints - person.joints for each in noisy.persons])
    count = shift.size
    assert abs(shift.std() - 6) < 4 * 6 / np.sqrt(2 * count)
    assert abs(shift.mean()) < 4 * 6 / np.sqrt(count)
    again = with_label_noise(data, 0.03)
    assert all((a.joints == b.joints).all() for a, b in zip(noisy.persons, again.persons, strict=True))
    assert len({tuple(each.joints.ravel()) for each in noisy.persons}) == 500


def test_no_label_noise_changes_nothing(small_data):
    data = load_persons(small_data, "train")
    assert with_label_noise(data, 0.0) is data
