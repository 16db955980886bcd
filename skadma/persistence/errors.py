"""What goes wrong with a model that is handed on."""


class ModelError(ValueError):
    """A model cannot be saved, loaded or exported; the message says what helps."""
