"""Images from files and to files."""
