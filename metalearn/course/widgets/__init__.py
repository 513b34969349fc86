"""What a lesson shows: predictions, quizzes, interactive figures."""
