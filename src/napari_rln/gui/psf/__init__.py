"""The dock that computes, measures, examines and repairs PSFs."""
