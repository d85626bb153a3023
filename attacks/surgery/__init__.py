"""What a malicious server does to the model before it sends it: each works on a copy of the user's own model."""

from attacks.surgery.imprint import Imprint, plant_imprint
from attacks.surgery.inconsistency import plant_silence
from attacks.surgery.planted import Planted

__all__ = ["Imprint", "Planted", "plant_imprint", "plant_silence"]
