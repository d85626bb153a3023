"""What inference attacks are after, by asset; an attack's targets tell which it is."""

from attacks import inferences
from fedsim.assets.case import Asset, Case, Scored
from fedsim.assets.classes import CLASSES, FEATURES
from fedsim.assets.copies import ATTRIBUTE, COPY
from fedsim.assets.membership import MEMBERSHIP, PROPERTY, SOURCE

__all__ = ["ASSETS", "Asset", "Case", "Scored", "asset_of"]

ASSETS = {asset.name: asset for asset in (MEMBERSHIP, SOURCE, PROPERTY, CLASSES, FEATURES, ATTRIBUTE, COPY)}

_BY_TARGETS = {
    ("inputs",): MEMBERSHIP,
    ("inputs", "labels"): MEMBERSHIP,
    ("inputs", "labels", "client"): MEMBERSHIP,
    ("labels",): CLASSES,
    ("inputs", "labels", "column", "values"): ATTRIBUTE,
    ("holds",): PROPERTY,
    ("features", "layer"): FEATURES,
    (): COPY,
}
_BY_NAME = {"source_inference": SOURCE}


def asset_of(name: str) -> Asset | None:
    """What attack ``name`` is after; None where a scenario cannot ask it."""
    return _BY_NAME.get(name) or _BY_TARGETS.get(inferences()[name].needs.targets)
