"""BYOL: the method, its augmentation, schedules, start weights and model file."""
