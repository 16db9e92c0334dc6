"""Figures of the book that a reader changes with sliders, without a server or a network."""

from hdm.explorable.dot import move_the_dot
from hdm.explorable.frame import Explorable, Slider
from hdm.explorable.library import vega_script
from hdm.explorable.trainings import trainings_side_by_side

__all__ = ["Explorable", "Slider", "move_the_dot", "trainings_side_by_side", "vega_script"]
