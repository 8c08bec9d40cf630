from .conditions import FieldConditions as FieldConditions
from .imaging import ImagingSettings as ImagingSettings
from .imaging import simulate_pair as simulate_pair
from .structures import StructureSettings as StructureSettings
