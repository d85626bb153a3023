"""What a malicious server does to the model before it sends it: each works on a copy of the user's own model."""

from attacks.surgery.fishing import plant_feature_fishing, plant_fishing
from attacks.surgery.imprint import plant_imprint
from attacks.surgery.inconsistency import plant_silence, plant_whisper
from attacks.surgery.planted import Planted
from attacks.surgery.traps import plant_traps

__all__ = [
    "Planted",
    "plant_feature_fishing",
    "plant_fishing",
    "plant_imprint",
    "plant_silence",
    "plant_traps",
    "plant_whisper",
]
