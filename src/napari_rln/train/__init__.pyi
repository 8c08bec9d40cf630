from .loop import train_model as train_model
from .loop import train_model_iter as train_model_iter
from .training_set import choose_settings as choose_settings
from .training_set import training_set_of as training_set_of
from .training_settings import TrainReport as TrainReport
from .training_settings import TrainSettings as TrainSettings
