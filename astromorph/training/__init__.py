"""The step `train`: the loop, its state, checkpoints and reports."""
