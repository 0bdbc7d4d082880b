"""Learn a distribution by minimising a distance between it and the model's."""
