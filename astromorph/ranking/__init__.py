"""The step `rank`: images that resemble those that the user has marked."""
