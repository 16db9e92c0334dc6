"""Maps of the same joint after every epoch."""

import pytest
import torch

from hdm.data import load_persons
from hdm.data.crops import PersonCrops
from hdm.errors import InputError
from hdm.train import Film, trained_network


def test_a_film_has_a_frame_of_every_epoch_and_the_last_is_of_the_trained_network(tiny, run):
    config = tiny(loss="hdm", decoder="local")
    film = Film(load_persons(config.data, "val"), "left_hip", persons=3)
    result = run(config, after_epoch=film)
    assert [frame.epoch for frame in film.frames] == [0, 1, 2]
    model, loss = trained_network(result)
    crops = PersonCrops(film.data, config.input_size, convention=config.convention)
    number = film.data.skeleton.names.index("left_hip")
    shown = [crop for crop in map(crops.__getitem__, range(len(crops))) if crop.visible[number]][:3]
    last = film.frames[-1]
    assert last.maps.shape == (3, 16, 8) and last.found.shape == (3, 2)
    torch.testing.assert_close(last.joints, torch.stack([crop.joints[number] for crop in shown]))
    with torch.no_grad():
        maps = loss.maps(model(model.prepare(torch.stack([crop.image for crop in shown]))))
    torch.testing.assert_close(last.maps, maps[:, number])
    assert not torch.equal(film.frames[0].maps, last.maps)


def test_who_looks_on_changes_nothing(tiny, run, same_end):
    config = tiny()
    film = Film(load_persons(config.data, "val"), "nose")
    same_end(run(config, "filmed", after_epoch=film), run(config, "alone"))


def test_an_unknown_joint_is_told(tiny, run):
    config = tiny()
    with pytest.raises(InputError, match="unknown joint 'tail': the data has nose"):
        run(config, after_epoch=Film(load_persons(config.data, "val"), "tail"))
