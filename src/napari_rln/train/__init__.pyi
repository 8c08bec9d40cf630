from .loop import train_model as train_model
from .loop import train_steps as train_steps
from .training_set import choose_settings as choose_settings
from .training_set import setting_of as setting_of
from .training_settings import TrainReport as TrainReport
from .training_settings import TrainSettings as TrainSettings
