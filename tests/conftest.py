"""One thread for each test process: the suite runs on as many processes as there are cores."""

import torch

torch.set_num_threads(1)
