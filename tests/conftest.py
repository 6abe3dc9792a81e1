import lddgan  # noqa: F401  (first: it tells OpenMP's threads not to spin)
import torch

torch.set_num_threads(1)  # tiny networks gain nothing from a second thread, and on a busy machine lose much
