"""The folder of a trained model for other people and programs."""
