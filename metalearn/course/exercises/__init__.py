"""What an exercise is, how an answer is judged, and the hidden tests of a classroom."""
