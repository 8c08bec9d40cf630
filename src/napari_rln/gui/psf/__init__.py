"""The dock that makes, shows and repairs PSFs."""
