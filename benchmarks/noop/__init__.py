"""The model that gives back what it got, as each server has it: what a call costs where the model costs nothing."""
