"""The errors that a user is meant to read."""


class AstromorphError(Exception):
    """Something that the user can put right.

    The message names the file or the setting, what was found, what is allowed
    and what to do. The command line prints it without a traceback.
    """


class FitsImageError(AstromorphError):
    """A file from which no image can be taken; the message is the reason."""
