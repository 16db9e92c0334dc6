"""One measurement of a protocol's trap, as a row of its table."""

from typing import Any

from hdm.data import PersonData

Row = dict[str, Any]


def row_of(data: PersonData, predictions: str, trap: str, setting: str, right: bool, metric: str, value: float) -> Row:
    """predictions: whose. right: is the setting the protocol's own, or how the network was trained?"""
    return {
        "data": data.kind,
        "boxes": data.boxes,
        "predictions": predictions,
        "trap": trap,
        "setting": setting,
        "right": right,
        "metric": metric,
        "value": float(value),
        "persons": len(data.persons),
    }
